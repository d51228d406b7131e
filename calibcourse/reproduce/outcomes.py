"""What came of each run of the comparison of methods, and what a method changes.

A run is read at two steps: its last one ("final"), and that of its lowest validation loss ("best"),
which is the paper's rule. Neither choice looks at test images.
"""

import math
from dataclasses import dataclass

import numpy as np

from .._checks import check_choice
from ..history import History
from ..metrics import paired_difference
from .configs import METHODS, ComparisonConfig
from .plans import GRID
from .records import Run, Sweep

RULES = {"final": "final step", "best": "best validation step"}
TEMPERATURE = "CE + temperature"  # the CE runs, with the temperature that validation data choose
ALL_METHODS = (*METHODS, TEMPERATURE)

# Everything that a practitioner would try, read at the final step; early stopping is a rule and no
# method of training.
REMEDIES = {
    "CE": ("CE", "final"),
    "CE, stopped early": ("CE", "best"),
    TEMPERATURE: (TEMPERATURE, "final"),
    "label smoothing": ("label smoothing", "final"),
    "focal": ("focal", "final"),
    "Flat": ("Flat", "final"),
    "Rob": ("Rob", "final"),
    "CalMO": ("CalMO", "final"),
}
HIGHER_IS_BETTER = ("test_accuracy", "test_robust_accuracy", "test_robust_margin")


def outcomes(
    sweep: Sweep[ComparisonConfig], column: str, optimizer: str, method: str, rule: str = "final"
) -> np.ndarray:
    """One quantity of one method, seed by seed.

    Args:
        sweep: runs of the comparison.
        column: such as "test_ece", "test_accuracy", "test_loss", "test_robust_log_q".
        optimizer: "sgd", "adamw", "muon" or "sam".
        method: a label of `METHODS`, or "CE + temperature", whose test columns are those of the CE
            runs after dividing the logits by the temperature fitted on validation data. Its robust
            margins are those of CE divided by the temperature, its robust accuracy is CE's; its
            robust log Q is not recorded.
        rule: "final" or "best", the step of the lowest validation loss.

    Returns:
        (seeds,) float64, in the order of the seeds.

    Raises:
        ValueError: an unknown rule, or no such run, method or column.
    """
    return np.array(list(by_seed(sweep, column, optimizer, method, rule).values()))


def by_seed(
    sweep: Sweep[ComparisonConfig], column: str, optimizer: str, method: str, rule: str
) -> dict[int, float]:
    """`outcomes`, each under its seed."""
    check_choice(rule, "rule", RULES)
    check_choice(method, "method", [*ALL_METHODS, *sweep.labels])
    chosen = sorted(
        sweep.select(optimizer=optimizer, label=trained_as(method)).runs,
        key=lambda run: run.config.seed,
    )
    at_temperature = method == TEMPERATURE and column.startswith("test_")
    return {
        run.config.seed: _tempered(run, column, rule) if at_temperature else read(run, column, rule)
        for run in chosen
    }


def _tempered(run: Run[ComparisonConfig], column: str, rule: str) -> float:
    """A test column of a run after its logits were divided by its temperature."""
    if column == "test_robust_margin":
        # Dividing the logits divides the margin of every image, attacked or not.
        return read(run, column, rule) / read(run, "temperature", rule)
    if column == "test_robust_accuracy":
        return read(run, column, rule)  # and leaves its sign
    return read(run, column.replace("test_", "test_scaled_"), rule)


def read(run: Run[ComparisonConfig], column: str, rule: str) -> float:
    """One number of a run, in its last row or in that of its lowest validation loss."""
    check_choice(column, "column", run.history.columns)
    history = run.history
    return float((history.rows[-1] if rule == "final" else _best_row(history))[column])


def _best_row(history: History) -> dict[str, float]:
    """The row of the lowest validation loss.

    A record keeps five digits, in which rows may tie that did not: the one that was chosen is the
    one in which test images were looked at.
    """
    lowest = history.best("validation_loss")["validation_loss"]
    tied = [row for row in history.rows if row["validation_loss"] == lowest]
    return max(tied, key=lambda row: sum(map(math.isfinite, row.values())))


def is_recorded(sweep: Sweep[ComparisonConfig], method: str, column: str) -> bool:
    """Whether a sweep has a column of a method: log Q is not known at another temperature.

    Robust accuracy is younger than the first records.
    """
    known = all(column in run.history.columns for run in sweep.runs)
    return known and (method, column) != (TEMPERATURE, "test_robust_log_q")


def trained_as(method: str) -> str:
    """The label of the runs behind a method."""
    return "CE" if method == TEMPERATURE else method


def paired(
    sweep: Sweep[ComparisonConfig], column: str, optimizer: str, *reads: tuple[str, str]
) -> list[np.ndarray]:
    """`outcomes` of several methods, each (method, rule), over the very same seeds.

    Raises:
        ValueError: as `outcomes`; the methods were run with different seeds.
    """
    found = [by_seed(sweep, column, optimizer, method, rule) for method, rule in reads]
    for (method, _), values in zip(reads, found, strict=True):
        if values.keys() != found[0].keys():
            raise ValueError(
                f"sweep must hold the same seeds of {reads[0][0]} and {method} with {optimizer}, "
                f"got {list(found[0])} and {list(values)}"
            )
    return [np.array(list(values.values())) for values in found]


@dataclass(frozen=True)
class Difference:
    """A method's quantity minus the baseline's, seed by seed (the seeds share initial weights).

    Attributes:
        values: (seeds,).
        mean, low, high: the mean and its 95 % interval by Student's t; with three seeds it is wide.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float

    def __repr__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def difference(
    sweep: Sweep[ComparisonConfig],
    column: str,
    optimizer: str,
    method: str,
    rule: str = "final",
    baseline: str = "CE",
) -> Difference:
    """What a method changes against a baseline, paired by seed.

    Args:
        sweep, column, optimizer, method, rule: as for `outcomes`.
        baseline: another method.

    Returns:
        `Difference`.

    Raises:
        ValueError: as `outcomes`; the two have different seeds, or a single one, which has no
            spread.
    """
    ours, theirs = paired(sweep, column, optimizer, (method, rule), (baseline, rule))
    if (n := len(ours)) < 2:
        raise ValueError(f"sweep must hold at least two seeds of {method}, got {n}: run more seeds")
    found = paired_difference(ours.tolist(), theirs.tolist(), "seeds").difference
    return Difference(tuple(ours - theirs), found.estimate, found.low, found.high)


@dataclass(frozen=True)
class Verdict:
    """A claim about a method, for one optimizer.

    Attributes:
        claim: in words, as in `CLAIMS`.
        optimizer: "sgd", "adamw", "muon" or "sam".
        change: the method minus the baseline, paired by seed.
        seeds: how many seeds agree with the claim.
        holds: whether it holds; see `verdicts`.
    """

    claim: str
    optimizer: str
    change: Difference
    seeds: int
    holds: bool

    def __repr__(self) -> str:
        mark, change = "✓" if self.holds else "✗", self.change
        return (
            f"{mark} {self.seeds} of {len(change.values)}, "
            f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        )


# Claim: column, rule.
CLAIMS = {
    "final-step test ECE lower": ("test_ece", "final"),
    "test ECE lower at the best validation step": ("test_ece", "best"),
    "accuracy within the interval or better": ("test_accuracy", "final"),
    "robust log Q lower": ("test_robust_log_q", "final"),
}


def verdicts(
    sweep: Sweep[ComparisonConfig], method: str = "CalMO", baseline: str = "CE"
) -> list[Verdict]:
    """Which of `CLAIMS` hold for which optimizer.

    "Lower" holds if it does for every seed. An accuracy is "within the interval or better" unless
    the 95 % interval of its difference lies below 0, which three seeds seldom achieve.

    Args:
        sweep: runs of the comparison, at least two seeds each.
        method, baseline: as for `difference`.

    Returns:
        One verdict per claim and optimizer of the sweep, claim by claim.

    Raises:
        ValueError: as `difference`.
    """
    found = []
    for claim, (column, rule) in CLAIMS.items():
        for optimizer in sweep.optimizers:
            change = difference(sweep, column, optimizer, method, rule, baseline)
            values = np.array(change.values)
            if column == "test_accuracy":
                agree, holds = values >= 0, change.high >= 0
            else:
                agree, holds = values < 0, bool((values < 0).all())
            found.append(Verdict(claim, optimizer, change, int(agree.sum()), holds))
    return found


def as_good(
    sweep: Sweep[ComparisonConfig], column: str, optimizer: str, remedy: str, than: str = "CalMO"
) -> np.ndarray:
    """Seed by seed, whether one remedy does at least as well as another.

    Args:
        sweep, optimizer: as for `outcomes`.
        column: as for `outcomes`; accuracies and robust margins are better when higher, everything
            else when lower.
        remedy, than: of `REMEDIES`.

    Returns:
        (seeds,) bool.

    Raises:
        ValueError: an unknown remedy; as `outcomes`; the two have different seeds.
    """
    for name, value in (("remedy", remedy), ("than", than)):
        check_choice(value, name, REMEDIES)
    ours, theirs = paired(sweep, column, optimizer, REMEDIES[remedy], REMEDIES[than])
    return ours >= theirs if column in HIGHER_IS_BETTER else ours <= theirs


def step_costs(sweep: Sweep[ComparisonConfig], optimizer: str, method: str) -> np.ndarray:
    """Seconds per training step, seed by seed, as each run measured it when it had finished.

    Args:
        sweep, optimizer, method: as for `outcomes`.

    Returns:
        (seeds,) float64.
    """
    runs = sweep.select(optimizer=optimizer, label=trained_as(method)).runs
    return np.array([run.provenance["seconds_per_step"] for run in runs])


def grid_values(sweep: Sweep[ComparisonConfig], column: str, rule: str = "final") -> np.ndarray:
    """A quantity over CalMO's two weights, averaged over seeds.

    Args:
        sweep: runs of the table "grid".
        column, rule: as for `outcomes`.

    Returns:
        (robust weights, smooth weights) float64, in the order of `GRID`.

    Raises:
        ValueError: a cell has no run.
    """
    values = np.full([len(weights) for weights in GRID.values()], math.nan)
    for i, robust in enumerate(GRID["robust_weight"]):
        for j, smooth in enumerate(GRID["smooth_weight"]):
            cell = cell_runs(sweep, robust, smooth)
            values[i, j] = np.mean([read(run, column, rule) for run in cell])
    return values


def cell_runs(
    sweep: Sweep[ComparisonConfig], robust_weight: float, smooth_weight: float
) -> list[Run[ComparisonConfig]]:
    """The runs of one cell of the grid; a ValueError where there are none."""
    cell = [run for run in sweep.runs if _weights(run.config) == (robust_weight, smooth_weight)]
    if not cell:
        raise ValueError(f"sweep must hold the weights ({robust_weight:g}, {smooth_weight:g})")
    return cell


def _weights(config: ComparisonConfig) -> tuple[float, float] | None:
    """(λ_r, λ_s) of a run; cross-entropy is (0, 0)."""
    if config.label == "CE":
        return 0.0, 0.0
    if config.loss != "calmo":
        return None
    return config.loss_options["robust_weight"], config.loss_options["smooth_weight"]
