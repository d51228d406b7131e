"""The paper's two hypotheses as numbers: how high ECE climbs, how soon it falls, at equal loss.

Hypothesis 1 (arXiv 2604.20614, Sec. 3): what leads to flat minima calibrates. Hypothesis 2: what
suppresses steep directions calibrates the training set better than flat minima do. A measure is a
function of one run's history; `compare` sets two optimizers against each other run by run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .._checks import check_real
from ..history import History
from .configs import TrajectoryConfig
from .markdown import markdown_table
from .records import Sweep

Measure = Callable[[History], float]


def peak(history: History, column: str = "train_ece") -> float:
    """The largest value of a column along a run.

    Args:
        history: the run.
        column: one of its columns.

    Returns:
        The value, in the column's unit.

    Raises:
        ValueError: no such column, or no finite value in it.

    Example:
        >>> peak(History([{"step": s, "train_ece": e} for s, e in enumerate((0.1, 0.4, 0.2))]))
        0.4
    """
    return float(history.best(column, largest=True)[column])


def settling_step(history: History, level: float, column: str = "train_ece") -> float:
    """The step from which on a column stays below a level until the run ends.

    Args:
        history: the run.
        level: in the column's unit, finite.
        column: one of its columns; between two probes its value is taken to change linearly.

    Returns:
        Updates; 0 if it never was at the level, inf if it is there at the last probe. It can only
        be as true as the probes are dense: what happens between two of them is not seen.

    Raises:
        ValueError, TypeError: no such column, or a level that is not a finite number.

    Example:
        >>> rows = [{"step": s, "train_ece": e} for s, e in ((0, 0.4), (10, 0.3), (20, 0.1))]
        >>> settling_step(History(rows), 0.2)
        15.0
    """
    check_real(level, "level")
    steps, values = _measured(history, "step", column)
    at_or_above = np.flatnonzero(values >= level)
    if len(at_or_above) == 0:
        return 0.0
    last = at_or_above[-1]
    if last == len(values) - 1:
        return math.inf
    share = (values[last] - level) / (values[last] - values[last + 1])
    return float(steps[last] + share * (steps[last + 1] - steps[last]))


def at_matched_loss(
    history: History, column: str, loss: float, against: str = "train_loss"
) -> float:
    """A column's value at the moment when the loss first comes down to a level.

    Runs of different optimizers and learning rates meet there with equal fit, whatever their steps
    are worth. Between two probes the value is taken as a power of the loss: a straight line when
    both axes are logarithmic.

    Args:
        history: the run.
        column: a quantity that is not negative, such as "train_ece", "test_ece" or "sharpness".
        loss: the level, in nats, > 0.
        against: the column that has to come down to it.

    Returns:
        The value, in the column's unit; NaN if the loss starts at the level or never reaches it,
        or the value is 0 beside that moment.

    Raises:
        ValueError, TypeError: no such column, a negative value in one, or a level that is not > 0.

    Example:
        >>> rows = [{"step": 0, "train_loss": 1.0, "train_ece": 0.5},
        ...         {"step": 9, "train_loss": 0.01, "train_ece": 0.005}]
        >>> round(at_matched_loss(History(rows), "train_ece", 0.1), 9)
        0.05
    """
    check_real(loss, "loss", 0.0, strict=True)
    losses, values = _measured(history, against, column)
    for name, series in ((against, losses), (column, values)):
        if (series < 0).any():
            raise ValueError(f"{name} must not be negative, got {series.min():g}")
    reached = np.flatnonzero(losses <= loss)
    if len(reached) == 0 or reached[0] == 0:
        return math.nan
    pair = slice(reached[0] - 1, reached[0] + 1)
    if not (losses[pair].all() and values[pair].all()):
        return math.nan
    (high, low), (before, after) = np.log(losses[pair]), np.log(values[pair])
    share = (high - math.log(loss)) / (high - low)
    return float(np.exp(before + share * (after - before)))


def by_label(sweep: Sweep[TrajectoryConfig], measure: Measure) -> dict[str, np.ndarray]:
    """A measure of every run, optimizer by optimizer.

    Args:
        sweep: the runs.
        measure: called with each run's history.

    Returns:
        Label -> (learning rates, seeds) values in increasing order of both; NaN for a seed that a
        learning rate lacks.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> by_label(load_recorded("edge_of_stability"), peak)["GD"].shape
        (4, 3)
    """
    values = {}
    for label in sweep.labels:
        runs = sweep.select(label=label).runs
        rates = sorted({run.config.lr for run in runs})
        seeds = sorted({run.config.seed for run in runs})
        values[label] = np.full((len(rates), len(seeds)), math.nan)
        for run in runs:
            place = rates.index(run.config.lr), seeds.index(run.config.seed)
            values[label][place] = measure(run.history)
    return values


def decay_table(
    sweep: Sweep[TrajectoryConfig], measures: Mapping[str, Measure] | None = None, digits: int = 2
) -> str:
    """Measures of every optimizer in Markdown: median over its runs, and their range.

    Args:
        sweep: the runs.
        measures: heading -> measure; None is the peak of the training ECE, the step from which it
            stays below half the peak, and the step from which it stays below 0.05.
        digits: significant ones.

    Returns:
        One row per optimizer, such as "0.12 (0.1 to 0.3)"; "never" stands for an infinite step, a
        dash where nothing could be measured.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> recorded = load_recorded("edge_of_stability")
        >>> print(decay_table(recorded, {"always half": lambda history: 0.5}))
        | | always half |
        |---|---|
        | GD | 0.5 (0.5 to 0.5) |
        <BLANKLINE>
    """
    if measures is None:
        measures = {
            "peak of training ECE": peak,
            "below half its peak from step": lambda h: settling_step(h, peak(h) / 2),
            "below 0.05 from step": lambda h: settling_step(h, 0.05),
        }
    cells = {heading: by_label(sweep, measure) for heading, measure in measures.items()}
    rows = [
        [label, *(_spread(cells[heading][label], digits) for heading in measures)]
        for label in sweep.labels
    ]
    return markdown_table(["", *measures], rows)


@dataclass(frozen=True)
class PairedComparison:
    """Two optimizers, one measure, pair by pair.

    Args:
        label, reference: the optimizers.
        wins, losses: pairs in which the first has the smaller, the larger value.
        pairs: pairs in which both could be measured.
        ratio: median over these pairs of the first's value over the other's; NaN without a pair.
        low, high: the smallest and the largest such ratio.

    Example:
        >>> PairedComparison("SAM", "SGD", wins=11, losses=1, pairs=12, ratio=0.5, low=0.4,
        ...                  high=1.1)
        SAM below SGD in 11 of 12 pairs, ratio 0.50 (0.40 to 1.10)
        >>> _.verdict
        'lower'
    """

    label: str
    reference: str
    wins: int
    losses: int
    pairs: int
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What three pairs in four agree on, "lower" or "higher"; else "undecided"."""
        for count, word in ((self.wins, "lower"), (self.losses, "higher")):
            if count and count >= 0.75 * self.pairs:
                return word
        return "undecided"

    def __repr__(self) -> str:
        return (
            f"{self.label} below {self.reference} in {self.wins} of {self.pairs} pairs, "
            f"ratio {self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"
        )


def compare(
    sweep: Sweep[TrajectoryConfig], label: str, reference: str, measure: Measure
) -> PairedComparison:
    """Whether one optimizer has the smaller values of a measure than another.

    Runs of the same seed are paired. Where the learning rates of one optimizer are among those of
    the other, as for SGD, SAM and BulkSGD, a pair has the same learning rate too; otherwise every
    learning rate meets every other.

    Args:
        sweep: the runs.
        label, reference: optimizers as in the figures, such as "SAM" and "BulkSGD 3".
        measure: called with each run's history; the smaller, the better.

    Returns:
        The comparison.

    Raises:
        ValueError: an optimizer without runs; the error says which there are.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> compare(load_recorded("edge_of_stability"), "GD", "GD", peak)
        GD below GD in 0 of 12 pairs, ratio 1.00 (1.00 to 1.00)
    """
    ours, theirs = (_measure_runs(sweep, name, measure) for name in (label, reference))
    rates = [{lr for lr, _ in runs} for runs in (ours, theirs)]
    same_rate = rates[0] <= rates[1] or rates[1] <= rates[0]
    pairs = np.array(
        [
            (value, other)
            for (lr, seed), value in ours.items()
            for (other_lr, other_seed), other in theirs.items()
            if seed == other_seed and (lr == other_lr or not same_rate)
        ]
    ).reshape(-1, 2)
    value, other = pairs[~np.isnan(pairs).any(axis=1)].T
    wins, losses = int((value < other).sum()), int((value > other).sum())
    measurable = np.isfinite(value) & np.isfinite(other) & (other != 0)
    ratios = value[measurable] / other[measurable]
    summary = (np.median(ratios), ratios.min(), ratios.max()) if len(ratios) else (math.nan,) * 3
    return PairedComparison(label, reference, wins, losses, len(value), *map(float, summary))


def verdict_table(
    sweep: Sweep[TrajectoryConfig],
    measures: Mapping[str, Measure],
    opponents: Sequence[tuple[str, str]],
) -> str:
    r"""Verdicts in Markdown: one row per measure, one column per pair of optimizers.

    Args:
        sweep: the runs.
        measures: heading -> measure; the smaller, the better.
        opponents: pairs (label, reference) as in `compare`.

    Returns:
        Cells such as "lower, 11 of 12, ratio 0.50": the label's values are the lower ones.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> recorded = load_recorded("edge_of_stability")
        >>> verdict_table(recorded, {"peak": peak}, [("GD", "GD")]).split("\n")[2]
        '| peak | undecided, 0 of 12, ratio 1 |'
    """
    headings = [f"{label} against {reference}" for label, reference in opponents]
    rows = []
    for heading, measure in measures.items():
        found = [compare(sweep, label, reference, measure) for label, reference in opponents]
        cells = [
            f"{c.verdict}, {c.wins} of {c.pairs}"
            + ("" if math.isnan(c.ratio) else f", ratio {_rounded(c.ratio, 2)}")
            for c in found
        ]
        rows.append([heading, *cells])
    return markdown_table(["", *headings], rows)


def _measure_runs(
    sweep: Sweep[TrajectoryConfig], label: str, measure: Measure
) -> dict[tuple[float, int], float]:
    """Learning rate and seed -> measure, of the runs of one label."""
    runs = sweep.select(label=label).runs
    return {(run.config.lr, run.config.seed): measure(run.history) for run in runs}


def _measured(history: History, *columns: str) -> tuple[np.ndarray, ...]:
    """Columns without the rows in which one of them was not measured."""
    values = [history.column(name) for name in columns]
    finite = np.isfinite(values).all(axis=0)
    return tuple(series[finite] for series in values)


def _spread(values: np.ndarray, digits: int) -> str:
    """Median and range in words."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return "–"
    shown = [_rounded(v, digits) for v in (np.median(values), values.min(), values.max())]
    return "{} ({} to {})".format(*shown)


def _rounded(value: float, digits: int) -> str:
    if math.isinf(value):
        return "never"
    text = f"{value:.{digits}g}"
    # Whole numbers above the digits asked for: 1,234 says more than 1.2e+03.
    return f"{value:,.0f}" if "e+" in text else text
