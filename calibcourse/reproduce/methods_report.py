"""What comes out of the comparison of methods: the paper's tables beside ours, by both rules.

A run is read at two steps: its last one ("final"), and that of its lowest validation loss ("best"),
which is the paper's rule. Neither choice looks at test images.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._checks import check_choice
from ..plots import IDEAL, MARKERS, STYLE, TEST
from .configs import LABELS
from .methods import GRID, METHODS, TABLES
from .report import Sweep, made_by, markdown_table, write_files
from .runner import Run

RULES = {"final": "final step", "best": "best validation step"}
TEMPERATURE = "CE + temperature"  # the CE runs, with the temperature that validation data choose
ALL_METHODS = (*METHODS, TEMPERATURE)
T_95_OF_3 = 4.303  # Student's t, two-sided 95 %, two degrees of freedom

# arXiv 2604.20614, ResNet-20 on CIFAR-10: accuracy in %, its std, ECE, its std, over 3 seeds.
PAPER_TEST = {  # Tables 2 and A2
    ("sgd", "CE"): (75.2, 1.2, 0.081, 0.021),
    ("sgd", "Flat"): (80.8, 0.1, 0.053, 0.003),
    ("sgd", "Rob"): (78.2, 0.9, 0.062, 0.011),
    ("sgd", "CalMO"): (80.1, 1.4, 0.056, 0.001),
    ("sgd", "label smoothing"): (81.0, 1.0, 0.082, 0.009),
    ("sgd", "focal"): (78.0, 2.9, 0.029, 0.018),
    ("adamw", "CE"): (80.7, 0.4, 0.061, 0.007),
    ("adamw", "Flat"): (83.3, 0.9, 0.047, 0.002),
    ("adamw", "Rob"): (82.4, 0.2, 0.039, 0.009),
    ("adamw", "CalMO"): (83.2, 1.1, 0.045, 0.007),
    ("adamw", "label smoothing"): (85.8, 0.1, 0.059, 0.002),
    ("adamw", "focal"): (80.5, 1.3, 0.042, 0.019),
    ("muon", "CE"): (80.3, 0.3, 0.065, 0.016),
    ("muon", "Flat"): (81.0, 0.2, 0.046, 0.012),
    ("muon", "Rob"): (81.9, 0.4, 0.052, 0.010),
    ("muon", "CalMO"): (81.7, 0.9, 0.019, 0.002),
    ("muon", "label smoothing"): (82.4, 0.7, 0.045, 0.003),
    ("muon", "focal"): (78.7, 0.5, 0.025, 0.017),
    ("sam", "CE"): (85.0, 0.3, 0.020, 0.005),
    ("sam", "Flat"): (84.1, 0.3, 0.016, 0.004),
    ("sam", "Rob"): (85.5, 0.4, 0.021, 0.006),
    ("sam", "CalMO"): (85.2, 0.4, 0.017, 0.005),
    ("sam", "label smoothing"): (86.2, 0.5, 0.067, 0.004),
    ("sam", "focal"): (84.0, 1.0, 0.089, 0.010),
}
PAPER_TRAIN = {  # Table A1; nan where the paper gives no spread
    ("sgd", "CE"): (100.0, math.nan, 0.000, math.nan),
    ("adamw", "CE"): (100.0, math.nan, 0.000, math.nan),
    ("muon", "CE"): (99.5, math.nan, 0.003, 0.001),
    ("sam", "CE"): (100.0, math.nan, 0.006, 0.002),
    ("sgd", "CalMO"): (100.0, math.nan, 0.004, math.nan),
    ("adamw", "CalMO"): (100.0, math.nan, 0.004, math.nan),
    ("muon", "CalMO"): (99.9, math.nan, 0.008, math.nan),
    ("sam", "CalMO"): (100.0, math.nan, 0.014, 0.001),
}


def outcomes(
    sweep: Sweep, column: str, optimizer: str, method: str, rule: str = "final"
) -> np.ndarray:
    """One quantity of one method, seed by seed.

    Args:
        sweep: runs of the comparison.
        column: such as "test_ece", "test_accuracy", "test_loss", "test_robust_log_q".
        optimizer: "sgd", "adamw", "muon" or "sam".
        method: a label of `METHODS`, or "CE + temperature", whose test columns are those of the CE
            runs after dividing the logits by the temperature fitted on validation data. Its robust
            margins are those of CE divided by the temperature; its robust log Q is not recorded.
        rule: "final" or "best", the step of the lowest validation loss.

    Returns:
        (seeds,) float64, in the order of the seeds.

    Raises:
        ValueError: an unknown rule, or no such run, method or column.
    """
    check_choice(rule, "rule", RULES)
    check_choice(method, "method", [*ALL_METHODS, *(run.config.label for run in sweep.runs)])
    chosen = sorted(
        sweep.select(optimizer=optimizer, label=_trained_as(method)).runs,
        key=lambda run: run.config.seed,
    )
    if method != TEMPERATURE or not column.startswith("test_"):
        return np.array([_read(run, column, rule) for run in chosen])
    if column == "test_robust_margin":
        # Dividing the logits divides the margin of every image, attacked or not.
        return np.array([_read(r, column, rule) / _read(r, "temperature", rule) for r in chosen])
    scaled = column.replace("test_", "test_scaled_")
    return np.array([_read(run, scaled, rule) for run in chosen])


def _recorded(method: str, column: str) -> bool:
    """Whether a method has a column: robust log Q is not known at another temperature."""
    return (method, column) != (TEMPERATURE, "test_robust_log_q")


def _trained_as(method: str) -> str:
    """The label of the runs behind a method."""
    return "CE" if method == TEMPERATURE else method


def _read(run: Run, column: str, rule: str) -> float:
    check_choice(column, "column", run.history.columns)
    history = run.history
    row = history.rows[-1] if rule == "final" else history.best("validation_loss")
    return float(row[column])


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
    sweep: Sweep,
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
        ValueError: as `outcomes`; the two have different numbers of seeds, or not three.
    """
    ours = outcomes(sweep, column, optimizer, method, rule)
    theirs = outcomes(sweep, column, optimizer, baseline, rule)
    if len(ours) != 3 or len(theirs) != 3:
        raise ValueError(
            f"sweep must hold three seeds of {method} and {baseline}, "
            f"got {len(ours)} and {len(theirs)}"
        )
    values = ours - theirs
    mean, half = values.mean(), T_95_OF_3 * values.std(ddof=1) / math.sqrt(len(values))
    return Difference(tuple(values), float(mean), float(mean - half), float(mean + half))


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


def verdicts(sweep: Sweep, method: str = "CalMO", baseline: str = "CE") -> list[Verdict]:
    """Which of `CLAIMS` hold for which optimizer.

    "Lower" holds if it does for every seed. An accuracy is "within the interval or better" unless
    the 95 % interval of its difference lies below 0, which three seeds seldom achieve.

    Args:
        sweep: runs of the comparison, three seeds each.
        method, baseline: as for `difference`.

    Returns:
        One verdict per claim and optimizer of the sweep, claim by claim.

    Raises:
        ValueError: as `difference`.
    """
    found = []
    for claim, (column, rule) in CLAIMS.items():
        for optimizer in _optimizers(sweep):
            change = difference(sweep, column, optimizer, method, rule, baseline)
            values = np.array(change.values)
            if column == "test_accuracy":
                agree, holds = values >= 0, change.high >= 0
            else:
                agree, holds = values < 0, bool((values < 0).all())
            found.append(Verdict(claim, optimizer, change, int(agree.sum()), holds))
    return found


def verdict_text(found: Sequence[Verdict]) -> str:
    """Verdicts in Markdown, a row per claim and a column per optimizer, failing ones included.

    Args:
        found: from `verdicts`.

    Returns:
        Markdown: in each cell whether it holds, for how many seeds, and the mean difference with
        its 95 % interval.
    """
    optimizers = list(dict.fromkeys(verdict.optimizer for verdict in found))
    cells = {(verdict.claim, verdict.optimizer): repr(verdict) for verdict in found}
    rows = [
        [claim, *(cells[claim, optimizer] for optimizer in optimizers)]
        for claim in dict.fromkeys(verdict.claim for verdict in found)
    ]
    return markdown_table(["claim", *(LABELS[o] for o in optimizers)], rows)


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
HIGHER_IS_BETTER = ("test_accuracy", "test_robust_margin")


def as_good(
    sweep: Sweep, column: str, optimizer: str, remedy: str, than: str = "CalMO"
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
        ValueError: an unknown remedy; or as `outcomes`.
    """
    for name, value in (("remedy", remedy), ("than", than)):
        check_choice(value, name, REMEDIES)
    ours, theirs = (outcomes(sweep, column, optimizer, *REMEDIES[r]) for r in (remedy, than))
    return ours >= theirs if column in HIGHER_IS_BETTER else ours <= theirs


def remedies_text(sweep: Sweep, column: str) -> str:
    """One quantity under every remedy in Markdown, and for how many seeds it does as well as CalMO.

    Args:
        sweep: runs of the comparison.
        column: as for `outcomes`.

    Returns:
        Markdown: mean ± standard deviation over seeds, then the number of seeds in which the remedy
        is at least as good as CalMO; bold where these are most of them.
    """
    optimizers = _optimizers(sweep)
    name, form = QUANTITIES[column]
    rows = []
    for remedy, (method, rule) in REMEDIES.items():
        cells = []
        for optimizer in optimizers:
            if not _recorded(method, column):
                cells.append("not recorded")
                continue
            values = outcomes(sweep, column, optimizer, method, rule)
            cell = form.format(*_mean_and_std(values))
            if remedy != "CalMO":
                good = as_good(sweep, column, optimizer, remedy)
                cell += f" ({good.sum()} of {len(good)})"
                cell = f"**{cell}**" if 2 * good.sum() > len(good) else cell
            cells.append(cell)
        rows.append([remedy, *cells])
    return markdown_table([name, *(LABELS[o] for o in optimizers)], rows)


def remedies_figure(sweep: Sweep) -> Figure:
    """Mean robust margin against test ECE under every remedy, one panel per optimizer.

    Args:
        sweep: runs of the comparison.

    Returns:
        The figure; one mark per seed, filled where the training itself looked at robust margins.
    """
    optimizers = _optimizers(sweep)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1,
            len(optimizers),
            figsize=(2.6 * len(optimizers) + 1.8, 3.2),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
    for ax, optimizer in zip(axes[0], optimizers, strict=True):
        for marker, (remedy, (method, rule)) in zip(MARKERS, REMEDIES.items(), strict=True):
            x, y = (
                outcomes(sweep, column, optimizer, method, rule)
                for column in ("test_ece", "test_robust_margin")
            )
            fill = TEST if method in ("Rob", "CalMO") else "white"
            ax.scatter(x, y, marker=marker, s=34, facecolor=fill, edgecolor=TEST, label=remedy)
        ax.axhline(0, color=IDEAL, ls="--", lw=1)
        ax.set(title=LABELS[optimizer], xlabel="test ECE")
    axes[0, 0].set(ylabel="mean robust margin (logits)", xlim=(0, None))
    axes[0, -1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def _optimizers(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(run.config.optimizer for run in sweep.runs))


def accuracy_and_ece_text(sweep: Sweep, table: str) -> str:
    """Accuracy and ECE in Markdown: ours by both rules, the paper's beneath.

    Args:
        sweep: the runs that `plan_methods(table)` asked for.
        table: "table2", "tableA1", "tableA2" or "methods".

    Returns:
        Markdown, one column per method, mean ± standard deviation (n - 1) over seeds.

    Raises:
        ValueError: an unknown table, or a missing run.
    """
    check_choice(table, "table", [name for name in TABLES if name != "grid"])
    split = "train" if table == "tableA1" else "test"
    paper = PAPER_TRAIN if table == "tableA1" else PAPER_TEST
    methods = TABLES[table].methods
    columns = (*methods, TEMPERATURE) if "CE" in methods and split == "test" else methods
    rows = []
    for optimizer in TABLES[table].optimizers:
        for rule, name in RULES.items():
            cells = [
                _cell(
                    100 * outcomes(sweep, f"{split}_accuracy", optimizer, method, rule),
                    outcomes(sweep, f"{split}_ece", optimizer, method, rule),
                )
                for method in columns
            ]
            rows.append([f"{LABELS[optimizer]}, {name}", *cells])
        cells = [_paper_cell(paper.get((optimizer, method))) for method in columns]
        rows.append([f"*{LABELS[optimizer]}, the paper's*", *cells])
    return markdown_table([f"{split}: accuracy, ECE", *columns], rows)


QUANTITIES = {
    "test_accuracy": ("accuracy", "{:.3f} ± {:.3f}"),
    "test_ece": ("ECE", "{:.3f} ± {:.3f}"),
    "test_kce": ("KCE", "{:.3f} ± {:.3f}"),
    "test_loss": ("NLL", "{:.3f} ± {:.3f}"),
    "test_brier": ("Brier", "{:.3f} ± {:.3f}"),
    "test_robust_margin": ("mean robust margin", "{:.2f} ± {:.2f}"),
    "test_robust_log_q": ("robust log Q", "{:.2f} ± {:.2f}"),
}


def every_quantity_text(sweep: Sweep, optimizer: str, rule: str = "final") -> str:
    """All test quantities of one optimizer in Markdown, one row per method, with the cost.

    Args:
        sweep: runs of the comparison.
        optimizer: one that it holds.
        rule: "final" or "best".

    Returns:
        Markdown; ms/step is the median over seeds of processor milliseconds per training step.
    """
    rows = []
    for method in ALL_METHODS:
        cells = []
        for column, (_, form) in QUANTITIES.items():
            if not _recorded(method, column):
                cells.append("not recorded")
                continue
            values = outcomes(sweep, column, optimizer, method, rule)
            cells.append(form.format(*_mean_and_std(values)))
        cost = 1000 * np.median(step_costs(sweep, optimizer, method))
        rows.append([method, *cells, f"{cost:.1f}"])
    names = [name for name, _ in QUANTITIES.values()]
    return markdown_table([f"{LABELS[optimizer]}, {RULES[rule]}", *names, "ms/step"], rows)


def step_costs(sweep: Sweep, optimizer: str, method: str) -> np.ndarray:
    """Seconds per training step, seed by seed, as each run measured it when it had finished.

    Args:
        sweep, optimizer, method: as for `outcomes`.

    Returns:
        (seeds,) float64.
    """
    runs = sweep.select(optimizer=optimizer, label=_trained_as(method)).runs
    return np.array([run.provenance["seconds_per_step"] for run in runs])


def comparison_figure(sweep: Sweep) -> Figure:
    """Test ECE and accuracy of every method: one column of panels per optimizer, a dot per seed.

    Args:
        sweep: runs of the comparison.

    Returns:
        The figure; filled dots are the final step, open ones the best validation step.
    """
    optimizers = _optimizers(sweep)
    there = {run.config.label for run in sweep.runs}
    methods = [m for m in METHODS if m in there] + [TEMPERATURE] * ("CE" in there)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            2,
            len(optimizers),
            figsize=(2.5 * len(optimizers) + 1.2, 4.6),
            sharey="row",
            sharex=True,
            squeeze=False,
        )
    for column, optimizer in zip(axes.T, optimizers, strict=True):
        for ax, quantity in zip(column, ("test_ece", "test_accuracy"), strict=True):
            for place, method in enumerate(methods):
                for rule, shift, fill in (("final", -0.15, TEST), ("best", 0.15, "white")):
                    values = outcomes(sweep, quantity, optimizer, method, rule)
                    ax.scatter(
                        [place + shift] * len(values), values, s=18, facecolor=fill, edgecolor=TEST,
                        label=RULES[rule] if place == 0 else None,
                    )  # fmt: skip
            ax.set_xticks(range(len(methods)), methods, rotation=60, ha="right")
            ax.grid(axis="x", alpha=0.3)
        column[0].set_title(LABELS[optimizer])
    axes[0, 0].set(ylabel="test ECE", ylim=(0, None))
    axes[1, 0].set(ylabel="test accuracy")
    axes[0, 0].legend(fontsize=7)
    return fig


def grid_values(sweep: Sweep, column: str, rule: str = "final") -> np.ndarray:
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
            cell = _cell_runs(sweep, robust, smooth)
            values[i, j] = np.mean([_read(run, column, rule) for run in cell])
    return values


def _cell_runs(sweep: Sweep, robust_weight: float, smooth_weight: float) -> list[Run]:
    """The runs of one cell of the grid; a ValueError where there are none."""
    cell = [run for run in sweep.runs if _weights(run) == (robust_weight, smooth_weight)]
    if not cell:
        raise ValueError(f"sweep must hold the weights ({robust_weight:g}, {smooth_weight:g})")
    return cell


def _weights(run: Run) -> tuple[float, float] | None:
    """(λ_r, λ_s) of a run; cross-entropy is (0, 0)."""
    if run.config.label == "CE":
        return 0.0, 0.0
    if run.config.loss != "calmo":
        return None
    return run.config.loss_options["robust_weight"], run.config.loss_options["smooth_weight"]


def grid_figure(sweep: Sweep, rule: str = "final") -> Figure:
    """Validation loss, test ECE and test accuracy over the weights; the cell that validation picks.

    Args:
        sweep: runs of the table "grid".
        rule: "final" or "best".

    Returns:
        The figure; the frame marks the lowest validation loss, in every panel.
    """
    panels = {
        "validation_loss": ("validation NLL (chooses)", "viridis_r"),
        "test_ece": ("test ECE", "viridis_r"),
        "test_accuracy": ("test accuracy", "viridis"),
    }
    chosen = np.unravel_index(
        np.argmin(grid_values(sweep, "validation_loss", rule)), [len(w) for w in GRID.values()]
    )
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(1, len(panels), figsize=(3.3 * len(panels), 3.1), squeeze=False)
    for ax, (column, (title, cmap)) in zip(axes[0], panels.items(), strict=True):
        values = grid_values(sweep, column, rule)
        ax.imshow(values, cmap=cmap, aspect="auto", origin="lower")
        middle = (values.min() + values.max()) / 2
        for (i, j), value in np.ndenumerate(values):
            light = (value > middle) == cmap.endswith("_r")
            ax.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=7,
                    color="white" if light else "black")  # fmt: skip
        i, j = chosen
        ax.add_patch(
            plt.Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=2)
        )
        ax.set_xticks(range(len(GRID["smooth_weight"])), [f"{w:g}" for w in GRID["smooth_weight"]])
        ax.set_yticks(range(len(GRID["robust_weight"])), [f"{w:g}" for w in GRID["robust_weight"]])
        ax.set(title=title, xlabel="$\\lambda_s$")
        ax.grid(visible=False)
    axes[0, 0].set_ylabel("$\\lambda_r$")
    return fig


def weights_panel(
    sweep: Sweep, robust_weight: float, smooth_weight: float, axes: Sequence[Axes]
) -> None:
    """One cell of the grid beside all others: its way through training, and where it ends.

    Args:
        sweep: runs of the table "grid".
        robust_weight, smooth_weight: λ_r and λ_s, of `GRID`.
        axes: two.

    Raises:
        ValueError: the sweep has no run with these weights.
    """
    way, end = axes
    chosen = _cell_runs(sweep, robust_weight, smooth_weight)
    plain = _cell_runs(sweep, 0.0, 0.0)
    for runs, color, width in ((plain, IDEAL, 0.8), (chosen, TEST, 1.6)):
        for run in runs:
            steps, ece = (run.history.column(name) for name in ("step", "validation_ece"))
            way.plot(steps, ece, color=color, lw=width, alpha=0.8)
            stop = run.history.best("validation_loss")
            way.plot(stop["step"], stop["validation_ece"], "o", ms=5, mfc="white", mec=color)
    way.set(xlabel="training step", ylabel="validation ECE", ylim=(0, None))
    way.set_title("grey: cross-entropy; circles: best validation step", fontsize=9)
    for runs, color, size in ((sweep.runs, IDEAL, 10), (chosen, TEST, 40)):
        for rule, fill in (("final", color), ("best", "white")):
            x, y = ([_read(r, c, rule) for r in runs] for c in ("test_ece", "test_accuracy"))
            end.scatter(x, y, s=size, facecolor=fill, edgecolor=color, alpha=0.8)
    losses = grid_values(sweep, "validation_loss").flatten()
    rank = 1 + int((losses < np.mean([_read(r, "validation_loss", "final") for r in chosen])).sum())
    end.set(xlabel="test ECE", ylabel="test accuracy", xlim=(0, None))
    end.set_title(f"filled: final step. Validation loss: rank {rank} of {len(losses)}", fontsize=9)


def write_methods_report(sweep: Sweep, table: str, folder: str | os.PathLike) -> list[Path]:
    """Write what a table of the comparison consists of: picture, tables and record.

    Args:
        sweep: the runs that `plan_methods` asked for.
        table: one of `TABLES`.
        folder: where TABLE.png, TABLE.md and TABLE.json go.

    Returns:
        The paths written.
    """
    check_choice(table, "table", TABLES)
    fig = grid_figure(sweep) if table == "grid" else comparison_figure(sweep)
    fig.suptitle(TABLES[table].title)
    text = f"# {table}: {TABLES[table].title}\n\n{made_by(sweep)}\n"
    if table != "grid":
        text += accuracy_and_ece_text(sweep, table)
    if table == "methods":
        text += "\nCalMO against CE: does the claim hold, for how many seeds, and the mean "
        text += "difference with its 95 % interval.\n\n" + verdict_text(verdicts(sweep))
        for column in ("test_ece", "test_robust_margin", "test_robust_log_q"):
            text += "\n" + remedies_text(sweep, column)
        for optimizer in TABLES[table].optimizers:
            for rule in RULES:
                text += "\n" + every_quantity_text(sweep, optimizer, rule)
    return write_files(sweep, Path(folder) / table, fig, text)


def _mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation (n - 1), NaN for a single seed."""
    return values.mean(), values.std(ddof=1) if len(values) > 1 else math.nan


def _cell(accuracies: Sequence[float], eces: Sequence[float]) -> str:
    if len(accuracies) < 2:
        return f"{accuracies[0]:.1f}, {eces[0]:.3f}"
    return (
        f"{np.mean(accuracies):.1f} ± {np.std(accuracies, ddof=1):.1f}, "
        f"{np.mean(eces):.3f} ± {np.std(eces, ddof=1):.3f}"
    )


def _paper_cell(numbers: tuple[float, float, float, float] | None) -> str:
    if numbers is None:
        return ""
    accuracy, accuracy_std, ece, ece_std = numbers
    spread = [
        "" if math.isnan(s) else f" ± {s:.{d}f}" for s, d in ((accuracy_std, 1), (ece_std, 3))
    ]
    return f"{accuracy:.1f}{spread[0]}, {ece:.3f}{spread[1]}"
