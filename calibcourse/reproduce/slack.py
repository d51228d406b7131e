"""How much each bound gives away along recorded runs: log10 of a factor, by optimizer and phase.

A bound's slack is log10 of the factor by which it misses what it bounds: 0 is tight, 3 is a factor
of a thousand. The phases come from the data of each run: its sharpness rises to a peak, then the
remaining images are fitted, then every training image is right (γ > 0) and ECE is bounded on both
sides. So "fitting" can be empty, and a run that never gets every image right has no third phase.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._checks import check_choice, check_integer
from ..bounds import NATS_PER_DECADE
from ..history import History
from .configs import TrajectoryConfig
from .markdown import markdown_table
from .records import Sweep

PHASES = ("rising", "fitting", "interpolating")
ECE_BOUNDS = (
    "paper_upper", "upper", "error_probability", "gap", "direct_upper",
    "direct_lower", "lower", "paper_lower",
)  # fmt: skip
RUNGS = ("u6", "u5", "u4", "u3", "u2", "u1", "l1", "l2", "l3", "l4")
# What the text shows, the paper's bound before its sharper neighbours.
TITLES = {
    "paper_upper": "ECE ≤ (K−1) Q [paper]",
    "upper": "ECE ≤ mean σ(log(K−1)−m) [here]",
    "error_probability": "ECE ≤ mean 1−p_y [paper]",
    "direct_lower": "ECE ≥ abs(u−err) [here]",
    "paper_lower": "ECE ≥ Q/K [paper]",
    "lower": "ECE ≥ Q/(1+e^−γ) [here]",
    "u6": "λ ≤ u6 [paper]",
    "u4": "λ ≤ u4 [here]",
    "u1": "λ ≤ u1 [here]",
    "l4": "λ ≥ l4 [here]",
    "l1": "λ ≥ l1 [here]",
}

IN_WORDS = {
    "u6": "the paper's bound",
    "u4": "u4",
    "u1": "u1",
    "paper_upper": "the paper's bound",
    "error_probability": "the mean of 1 - p_y",
}


@dataclass(frozen=True)
class SlackEntry:
    """One cell: slack of one bound, as log10 of a factor, over the runs of one optimizer.

    Attributes:
        optimizer: the label, such as "SGD" or "BulkSGD 3".
        phase: one of `PHASES`.
        split: "train" or "test".
        bound: one of `ECE_BOUNDS`, or a rung of `curvature_ladder`.
        median, low, high: over runs (learning rates and seeds) of each run's median over its
            probes in the phase; NaN where no run has the bound in the phase.
        n_runs: how many runs have it.
    """

    optimizer: str
    phase: str
    split: str
    bound: str
    median: float
    low: float
    high: float
    n_runs: int

    def __repr__(self) -> str:
        if not self.n_runs:
            return "—"
        # Adding 0 turns the -0.0 that rounding leaves into 0.0.
        middle, low, high = (round(x, 1) + 0.0 for x in (self.median, self.low, self.high))
        return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def row_phases(history: History) -> np.ndarray:
    """The phase of every row of a run, decided by its own sharpness and margins.

    Args:
        history: with the columns sharpness and train_gamma.

    Returns:
        (rows,) array of names: "interpolating" where γ > 0 on the training images; elsewhere
        "rising" before the row of the largest sharpness, "fitting" from that row on.

    Raises:
        ValueError: a column is missing.

    Example:
        >>> rows = [{"sharpness": s, "train_gamma": g} for s, g in ((1, -9), (7, -2), (3, 1))]
        >>> row_phases(History([{"step": i} | row for i, row in enumerate(rows)])).tolist()
        ['rising', 'fitting', 'interpolating']
    """
    sharpness, gamma = history.column("sharpness"), history.column("train_gamma")
    before_peak = np.arange(len(history)) < np.nanargmax(sharpness)
    return np.where(gamma > 0, "interpolating", np.where(before_peak, "rising", "fitting"))


def log_slack(history: History, split: str, n_classes: int) -> dict[str, np.ndarray]:
    """log10 slack of every bound on ECE and on λ_max, row by row.

    Args:
        history: with the columns of `calibration_quantities`, `margin_quantities`,
            `bound_quantities` and `LadderProbe` for the split.
        split: "train" or "test".
        n_classes: K.

    Returns:
        Bound -> (rows,) array, NaN where the bound does not hold (the lower ones where γ <= 0).
        ECE's bounds refer to all images of the split, the ladder's rungs to λ_max of the
        Gauss-Newton matrix of the split's images that its probe used.

    Raises:
        ValueError, TypeError: an unknown split, a column is missing, n_classes below 2.
    """
    check_choice(split, "split", ("train", "test"))
    check_integer(n_classes, "n_classes", 2)

    def column(name: str) -> np.ndarray:
        return history.column(f"{split}_{name}")

    log_ece, log_curvature = _log(column("ece")), column("log_u0")
    bounds = _log_ece_bounds(column, n_classes)
    slack = {name: _side(name) * (bounds[name] - log_ece) for name in ECE_BOUNDS}
    slack |= {rung: _side(rung) * (column(f"log_{rung}") - log_curvature) for rung in RUNGS}
    return {name: values / NATS_PER_DECADE for name, values in slack.items()}


def slack_table(sweep: Sweep[TrajectoryConfig]) -> list[SlackEntry]:
    """Slack of every bound, for every optimizer, phase and split of a sweep.

    Args:
        sweep: runs with all bounds along the way, such as `load_recorded()`.

    Returns:
        One entry per optimizer, phase, split and bound, in this order of nesting.

    Raises:
        ValueError, TypeError: as `log_slack` and `row_phases`.
    """
    entries = []
    for label in sweep.labels:
        runs = sweep.select(label=label).runs
        phase_of = [row_phases(run.history) for run in runs]
        slack_of = {
            split: [log_slack(run.history, split, run.n_classes) for run in runs]
            for split in ("train", "test")
        }
        for phase in PHASES:
            for split, slacks in slack_of.items():
                for bound in (*ECE_BOUNDS, *RUNGS):
                    pairs = zip(slacks, phase_of, strict=True)
                    medians = [_median(slack[bound][row == phase]) for slack, row in pairs]
                    entries.append(_entry(label, phase, split, bound, medians))
    return entries


def slack_table_text(sweep: Sweep[TrajectoryConfig], split: str) -> str:
    """The slack of the paper's bounds and of this course's in Markdown, log10 of a factor.

    Args:
        sweep: as for `slack_table`.
        split: "train" or "test".

    Returns:
        Markdown: one row per optimizer and phase, one column per bound; median over runs and, in
        brackets, their range; a dash where the bound is not available or no run has the phase.
        Rows and columns that would hold nothing but dashes are left out.
    """
    check_choice(split, "split", ("train", "test"))
    rows: dict[tuple[str, str], dict[str, SlackEntry]] = {}
    for entry in slack_table(sweep):
        if entry.split == split and entry.n_runs:
            rows.setdefault((entry.optimizer, entry.phase), {})[entry.bound] = entry
    shown = [bound for bound in TITLES if any(bound in row for row in rows.values())]
    lines = []
    for (optimizer, phase), row in rows.items():
        n_runs = max(entry.n_runs for entry in row.values())
        cells = (repr(row[bound]) if bound in row else "—" for bound in shown)
        lines.append([optimizer, f"{phase} ({n_runs})", *cells])
    return markdown_table(["optimizer", "phase (runs)", *(TITLES[b] for b in shown)], lines)


def median_slack(entries: list[SlackEntry], split: str, phase: str) -> dict[str, float]:
    """One number per bound: the median over optimizers of their medians.

    Args:
        entries: from `slack_table`.
        split: "train" or "test".
        phase: one of `PHASES`.

    Returns:
        Bound -> log10 slack; bounds that no optimizer has there are left out.

    Raises:
        ValueError: an unknown split or phase.
    """
    check_choice(split, "split", ("train", "test"))
    check_choice(phase, "phase", PHASES)
    values: dict[str, list[float]] = {}
    for entry in entries:
        if (entry.split, entry.phase) == (split, phase) and entry.n_runs:
            values.setdefault(entry.bound, []).append(entry.median)
    return {bound: float(np.median(medians)) for bound, medians in values.items()}


def slack_summary(entries: list[SlackEntry]) -> str:
    """The table in words: what the paper's bounds give away, and what stopping earlier gains.

    Args:
        entries: from `slack_table`.

    Returns:
        A sentence for each split, phase and bounded quantity, from the medians over optimizers.

    Raises:
        KeyError: the entries lack one of the bounds it speaks of.

    Example:
        >>> slack = {"u6": 3, "u4": 2, "u1": 1, "paper_upper": 2, "error_probability": 0}
        >>> print(slack_summary([SlackEntry("GD", "fitting", "train", bound, s, s, s, 1)
        ...                      for bound, s in slack.items()]))  # doctest: +NORMALIZE_WHITESPACE
        train, fitting:
            λ_max: the paper's bound is 1,000 times too large;
                   u4 100 times, 10 times tighter; u1 10 times, 100 times tighter
            ECE: the paper's bound is 100 times too large;
                 the mean of 1 - p_y 1 times, 100 times tighter
    """
    lines = []
    for split in ("train", "test"):
        for phase in PHASES:
            slack = median_slack(entries, split, phase)
            if slack:
                lines += [
                    f"{split}, {phase}:",
                    f"    λ_max: {_lost_and_gained(slack, 'u6', ('u4', 'u1'))}",
                    f"    ECE: {_lost_and_gained(slack, 'paper_upper', ('error_probability',))}",
                ]
    return "\n".join(lines)


def _lost_and_gained(slack: dict[str, float], paper: str, sharper: tuple[str, ...]) -> str:
    parts = [f"{IN_WORDS[paper]} is {_factor(slack[paper])} times too large"]
    for bound in sharper:
        gained = _factor(slack[paper] - slack[bound])
        parts.append(f"{IN_WORDS[bound]} {_factor(slack[bound])} times, {gained} times tighter")
    return "; ".join(parts)


def _factor(decades: float) -> str:
    """10 to the power of decades, in two digits; above ten thousand as a power of ten."""
    if decades >= 4:
        return f"10^{decades:.1f}"
    return f"{float(f'{10**decades:.2g}'):,g}"


def _log_ece_bounds(column: Callable[[str], np.ndarray], n_classes: int) -> dict[str, np.ndarray]:
    """Logarithms of the bounds on ECE, from the columns of one split."""
    right, log_q = column("gamma") > 0, column("log_q")
    error = 1 - column("accuracy")
    # Where every prediction is right, u is the mean of 1 - p_y, whose logarithm is kept: the
    # confidence itself, near 1, would lose the digits.
    misconfidence = np.where(
        right, np.exp(column("log_error_probability")), 1 - column("confidence")
    )
    return {
        "paper_upper": log_q + math.log(n_classes - 1),
        "upper": column("log_upper"),
        "error_probability": column("log_error_probability"),
        "gap": column("log_gap"),
        "direct_upper": _log(misconfidence + error),
        "direct_lower": _log(np.abs(misconfidence - error)),
        "lower": column("log_lower"),
        "paper_lower": np.where(right, log_q - math.log(n_classes), math.nan),
    }


def _log(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):  # the slack of an ECE of 0 is infinite
        return np.asarray(np.log(values))


def _side(bound: str) -> int:
    """1 for an upper bound, -1 for a lower one."""
    return -1 if bound.endswith("lower") or bound.startswith("l") else 1


def _median(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else math.nan


def _entry(label: str, phase: str, split: str, bound: str, medians: list[float]) -> SlackEntry:
    there = [value for value in medians if not math.isnan(value)]
    spread = (float(np.median(there)), min(there), max(there)) if there else (math.nan,) * 3
    return SlackEntry(label, phase, split, bound, *spread, len(there))
