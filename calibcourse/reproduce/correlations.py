"""How two quantities go together along a run: the correlations of Table 1."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import check_choice, check_real
from ..history import History
from .configs import LABELS, TrajectoryConfig
from .markdown import with_spread
from .paper import TABLE_1
from .plans import FIVE
from .records import Run, Sweep


def correlation(
    history: History,
    column: str,
    against: str = "sharpness",
    method: str = "pearson",
    steps: Sequence[int] | None = None,
) -> float:
    """Correlation of two quantities along one run.

    Args:
        history: the run.
        column, against: two of its columns.
        method: "pearson", or "spearman": Pearson's of the ranks, ties sharing their mean rank.
        steps: the rows to use; None is all of them. The number depends on them: how far the run
            goes and where it is sampled.

    Returns:
        In [-1, 1]; NaN with fewer than 3 rows or where a quantity does not change.

    Raises:
        ValueError: an unknown column or method.

    Example:
        >>> rows = [{"step": s, "a": s, "b": s**3} for s in range(5)]
        >>> round(correlation(History(rows), "a", "b"), 3)
        0.906
        >>> correlation(History(rows), "a", "b", "spearman")
        1.0
    """
    check_choice(method, "method", ("pearson", "spearman"))
    x, y = history.column(column), history.column(against)
    use = np.isfinite(x) & np.isfinite(y)
    if steps is not None:
        use &= np.isin(history.column("step"), steps)
    x, y = x[use], y[use]
    return pearson(_ranks(x), _ranks(y)) if method == "spearman" else pearson(x, y)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of two series.

    Args:
        x, y: (n,), finite.

    Returns:
        In [-1, 1]; NaN with n < 3 or where a series does not change.

    Example:
        >>> pearson(np.array([0.0, 1.0, 2.0]), np.array([5.0, 3.0, 1.0]))
        -1.0
    """
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    # Scaled first: products of numbers below 1e-160 would vanish.
    x, y = (x - x.mean()) / np.ptp(x), (y - y.mean()) / np.ptp(y)
    return round(float(x @ y / math.sqrt((x @ x) * (y @ y))), 12)


def at_even_steps(run: Run[TrajectoryConfig], column: str) -> np.ndarray:
    """One quantity at the evenly spaced probes of a run.

    Args:
        run: the run.
        column: one of its history's columns.

    Returns:
        (probes,) values; a run that diverged has fewer than its configuration plans.
    """
    history = run.history
    return history.column(column)[np.isin(history.column("step"), run.config.even_steps)]


def probes_within(
    run: Run[TrajectoryConfig], share: float = 1.0, spacing: str = "even"
) -> list[int]:
    """The probes in the first part of a run, sampled in steps or in logarithms of steps.

    Args:
        run: the run.
        share: of its steps, from 0 to 1.
        spacing: "even" or "log".

    Returns:
        Steps, the start among them.

    Raises:
        ValueError: a share out of range, or an unknown spacing.
    """
    check_real(share, "share", 0.0, 1.0)
    check_choice(spacing, "spacing", ("even", "log"))
    steps = run.config.even_steps if spacing == "even" else run.config.log_steps
    return [step for step in steps if step <= share * run.config.steps]


def whole_run(run: Run[TrajectoryConfig]) -> list[int]:
    """All evenly spaced probes of a run."""
    return run.config.even_steps


def up_to_the_peak(run: Run[TrajectoryConfig]) -> list[int]:
    """The evenly spaced probes of a run until its sharpness is largest, that one included.

    What comes later is left out: the run as it looks if it is stopped there.
    """
    sharpness = at_even_steps(run, "sharpness")
    return run.config.even_steps[: int(np.nanargmax(sharpness)) + 1]


def correlations(
    sweep: Sweep[TrajectoryConfig],
    column: str,
    method: str = "pearson",
    steps: Callable[[Run[TrajectoryConfig]], Sequence[int]] = whole_run,
) -> dict[str, dict[float, list[float]]]:
    """Correlation of one quantity with sharpness along each run.

    Args:
        sweep: the runs.
        column: one of their columns.
        method: as in `correlation`.
        steps: which probes of a run to use: `whole_run`, `up_to_the_peak`, or a function like them.

    Returns:
        label of the optimizer -> learning rate -> one value per seed, in the order of the runs.
    """
    return by_learning_rate(
        sweep, lambda run: correlation(run.history, column, method=method, steps=steps(run))
    )


def by_learning_rate(
    sweep: Sweep[TrajectoryConfig], value: Callable[[Run[TrajectoryConfig]], float]
) -> dict[str, dict[float, list[float]]]:
    """One number per run, by optimizer and learning rate: what `plots.correlation_dots` draws.

    Args:
        sweep: the runs.
        value: from a run to the number.

    Returns:
        label of the optimizer -> learning rate -> one value per seed, in the order of the runs.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> runs = load_recorded("cifar10_small").select(optimizer="gd")
        >>> list(by_learning_rate(runs, lambda run: run.config.steps)["GD"].values())
        [[3000, 3000, 3000], [1500, 1500, 1500]]
    """
    values: dict[str, dict[float, list[float]]] = {}
    for run in sweep.runs:
        by_rate = values.setdefault(run.config.label, {})
        by_rate.setdefault(run.config.lr, []).append(value(run))
    return values


@dataclass(frozen=True)
class Entry:
    """One cell of Table 1: mean and standard deviation (n - 1) over learning rates.

    Each learning rate counts once, with the mean over its seeds. `std_seeds` is the standard
    deviation over seeds at one learning rate (n - 1, pooled), which the paper does not give. Of
    `n_runs` runs those count that have a correlation: three probes in the window, and a quantity
    that changes.
    """

    column: str
    optimizer: str
    method: str
    mean: float
    std: float
    std_seeds: float
    n_defined: int
    n_runs: int

    def __repr__(self) -> str:
        if self.n_defined == 0:
            return "too few probes"
        text = with_spread(self.mean, self.std, 2)
        return text + f" ({self.n_defined} of {self.n_runs} runs)" * (self.n_defined < self.n_runs)


def table_1(
    sweep: Sweep[TrajectoryConfig],
    method: str = "pearson",
    steps: Callable[[Run[TrajectoryConfig]], Sequence[int]] = whole_run,
) -> list[Entry]:
    """Correlation of train and test ECE and KCE with sharpness, on evenly spaced steps.

    Args:
        sweep: the runs; optimizers that are not in the paper's table are left out.
        method: "pearson" as in the paper, or "spearman".
        steps: `whole_run`, or `up_to_the_peak`, as in `correlations`.

    Returns:
        One entry per quantity and optimizer, in the paper's order.
    """
    entries = []
    for column in TABLE_1:
        values = correlations(sweep, column, method, steps)
        for optimizer in FIVE:
            if LABELS[optimizer] in values:
                by_lr = list(values[LABELS[optimizer]].values())
                entries.append(Entry(column, optimizer, method, **_spread(by_lr)))
    return entries


def _spread(by_lr: list[list[float]]) -> dict[str, Any]:
    """Means and deviations of an entry from the values at each learning rate, NaN left out."""
    defined = [np.array(values)[np.isfinite(values)] for values in by_lr]
    defined = [values for values in defined if len(values)]
    means = np.array([values.mean() for values in defined])
    # Within a learning rate, seeds vary around its mean: so many values less so many means.
    within = sum(float(np.var(values)) * len(values) for values in defined)
    n_defined = sum(map(len, defined))
    freedom = n_defined - len(defined)
    return {
        "mean": float(means.mean()) if len(means) else math.nan,
        "std": float(means.std(ddof=1)) if len(means) > 1 else math.nan,
        "std_seeds": math.sqrt(within / freedom) if freedom else math.nan,
        "n_defined": n_defined,
        "n_runs": sum(map(len, by_lr)),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
