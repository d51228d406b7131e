"""What comes out of a sweep: Table 1 beside the paper's, figures, and one small record."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from .._checks import check_choice, check_real
from .._files import read_json, shortened, write_atomically, write_json
from ..history import History, log_steps
from ..plots import CURVATURE, STYLE, TEST, TRAIN, png_bytes
from .configs import FIGURES, FIVE, LABELS
from .runner import Run, config_from_dict

FORMAT = "calibcourse.sweep"
VERSION = 1
DIGITS = 5  # significant, in the record: far below the seed-to-seed spread

# arXiv 2604.20614, Table 1: Pearson correlation with GN sharpness, mean and std over 4 learning
# rates; the paper's "test" is its held-out half.
PAPER_TABLE_1 = {
    "train_ece": {"gd": (0.83, 0.08), "sgd": (0.84, 0.07), "adamw": (0.72, 0.07),
                  "muon": (0.63, 0.26), "sam": (0.92, 0.04)},
    "train_kce": {"gd": (0.83, 0.08), "sgd": (0.84, 0.07), "adamw": (0.70, 0.08),
                  "muon": (0.61, 0.28), "sam": (0.91, 0.04)},
    "test_ece": {"gd": (0.96, 0.02), "sgd": (0.97, 0.01), "adamw": (0.15, 0.15),
                 "muon": (-0.10, 0.28), "sam": (0.98, 0.01)},
    "test_kce": {"gd": (0.97, 0.01), "sgd": (0.97, 0.01), "adamw": (0.21, 0.22),
                 "muon": (-0.16, 0.31), "sam": (0.98, 0.01)},
}  # fmt: skip
# Axis label and colour of every quantity that a figure shows.
QUANTITIES = {
    "sharpness": ("sharpness $\\lambda_{\\max}$", CURVATURE),
    "batch_sharpness": ("batch sharpness", CURVATURE),
    "train_ece": ("train ECE", TRAIN),
    "train_kce": ("train KCE", TRAIN),
    "train_loss": ("train loss (nats)", TRAIN),
    "test_ece": ("test ECE", TEST),
    "test_kce": ("test KCE", TEST),
}


@dataclass(frozen=True)
class Sweep:
    """Finished runs and the command that made them.

    Args:
        runs: the runs, in the order of the plan.
        command: the words after `calibcourse`, without the output folder.
    """

    runs: tuple[Run, ...]
    command: str = ""

    def select(self, **criteria: Any) -> "Sweep":
        """The runs whose configuration has these values, such as optimizer="gd", lr=0.1.

        Raises:
            ValueError: no run is like that; the error says which values there are.
        """
        names = {"label", *(f.name for run in self.runs[:1] for f in fields(run.config))}
        for name in criteria:
            check_choice(name, "a criterion", names)
        chosen = tuple(
            run
            for run in self.runs
            if all(getattr(run.config, name) == value for name, value in criteria.items())
        )
        if not chosen:
            there = {n: sorted({str(getattr(r.config, n)) for r in self.runs}) for n in criteria}
            raise ValueError(f"no run has {criteria}; there are {there}")
        return Sweep(chosen, self.command)

    def save(self, path: str | os.PathLike) -> None:
        """Write the sweep as JSON, small: columns instead of rows, five significant digits."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "command": self.command,
            "runs": [
                {
                    "config": asdict(run.config),
                    "provenance": run.provenance,
                    "diverged_at": run.history.diverged_at,
                    "columns": {n: _rounded(run.history.column(n)) for n in run.history.columns},
                }
                for run in self.runs
            ],
        }
        write_json(path, record, indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Sweep":
        """Read a sweep; the file is treated as hostile.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it is no regular file, or cannot be opened.
            ValueError: not JSON, another version, or malformed; the file is named.
        """
        record = read_json(path)
        found = (record.get("format"), record.get("version")) if isinstance(record, dict) else None
        if found != (FORMAT, VERSION):
            raise ValueError(
                f"{path} must be a {FORMAT} of version {VERSION}, got {shortened(found)}"
            )
        try:
            if not isinstance(record["runs"], list) or not isinstance(record["command"], str):
                raise TypeError("runs must be an array, command a text")
            return cls(tuple(map(_run, record["runs"])), record["command"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is no sound sweep: {shortened(repr(error))}") from error

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        labels = ", ".join(dict.fromkeys(run.config.label for run in self.runs))
        return f"Sweep({len(self)} runs: {labels})"


def load_recorded(name: str = "fashion_mnist_small") -> Sweep:
    """A sweep that was really run and is shipped with the package.

    Raises:
        ValueError: none of that name; the error lists those there are.
    """
    folder = Path(__file__).with_name("recorded")
    check_choice(name, "name", [path.stem for path in folder.glob("*.json")])
    return Sweep.load(folder / f"{name}.json")


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
    if method == "spearman":
        x, y = _ranks(x), _ranks(y)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    # Scaled first: products of numbers below 1e-160 would vanish.
    x, y = (x - x.mean()) / np.ptp(x), (y - y.mean()) / np.ptp(y)
    return round(float(x @ y / math.sqrt((x @ x) * (y @ y))), 12)


def at_even_steps(run: Run, column: str) -> np.ndarray:
    """One quantity at the evenly spaced probes of a run.

    Args:
        run: the run.
        column: one of its history's columns.

    Returns:
        (probes,) values; a run that diverged has fewer than its configuration plans.
    """
    history = run.history
    return history.column(column)[np.isin(history.column("step"), run.config.even_steps)]


def probes_within(run: Run, share: float = 1.0, spacing: str = "even") -> list[int]:
    """The probes in the first part of a run, sampled in steps or in logarithms of steps.

    Args:
        run: the run.
        share: of its steps, above 0 and at most 1.
        spacing: "even" or "log".

    Returns:
        Steps, the start among them.

    Raises:
        ValueError: a share out of range, or an unknown spacing.
    """
    check_real(share, "share", 0.0, 1.0)
    check_choice(spacing, "spacing", ("even", "log"))
    config = run.config
    even = spacing == "even"
    steps = config.even_steps if even else log_steps(config.steps, config.log_probes)
    return [step for step in steps if step <= share * config.steps]


def correlations(
    sweep: Sweep,
    column: str,
    method: str = "pearson",
    steps: Callable[[Run], Sequence[int]] = lambda run: run.config.even_steps,
) -> dict[str, dict[float, list[float]]]:
    """Correlation of one quantity with sharpness along each run.

    Args:
        sweep: the runs.
        column: one of their columns.
        method: as in `correlation`.
        steps: which probes of a run to use; the evenly spaced ones, as in Table 1, unless said.

    Returns:
        label of the optimizer -> learning rate -> one value per seed, in the order of the runs.
    """
    values: dict[str, dict[float, list[float]]] = {}
    for run in sweep.runs:
        value = correlation(run.history, column, method=method, steps=steps(run))
        values.setdefault(run.config.label, {}).setdefault(run.config.lr, []).append(value)
    return values


@dataclass(frozen=True)
class Entry:
    """One cell of Table 1: mean and standard deviation (n - 1) over learning rates.

    Each learning rate counts once, with the mean over its seeds. `std_seeds` is the standard
    deviation over seeds at one learning rate (n - 1, pooled), `lowest` and `highest` are over all
    runs; the paper gives none of them.
    """

    column: str
    optimizer: str
    method: str
    mean: float
    std: float
    std_seeds: float
    lowest: float
    highest: float
    n_runs: int

    def __repr__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f}"


def table_1(sweep: Sweep, method: str = "pearson") -> list[Entry]:
    """Correlation of train and test ECE and KCE with sharpness, on evenly spaced steps.

    Args:
        sweep: the runs; optimizers that are not in the paper's table are left out.
        method: "pearson" as in the paper, or "spearman".

    Returns:
        One entry per quantity and optimizer, in the paper's order.
    """
    entries = []
    for column in PAPER_TABLE_1:
        values = correlations(sweep, column, method)
        for optimizer in FIVE:
            if LABELS[optimizer] in values:
                by_lr = list(values[LABELS[optimizer]].values())
                entries.append(Entry(column, optimizer, method, **_spread(by_lr)))
    return entries


def _spread(by_lr: list[list[float]]) -> dict[str, float]:
    """Means and deviations of an entry from the values at each learning rate."""
    means = np.array([np.mean(values) for values in by_lr])
    flat = np.concatenate(by_lr)
    # Within a learning rate, seeds vary around its mean: so many values less so many means.
    within = sum(float(np.var(values)) * len(values) for values in by_lr)
    freedom = len(flat) - len(by_lr)
    return {
        "mean": float(means.mean()),
        "std": float(means.std(ddof=1)) if len(means) > 1 else math.nan,
        "std_seeds": math.sqrt(within / freedom) if freedom else math.nan,
        "lowest": float(flat.min()),
        "highest": float(flat.max()),
        "n_runs": len(flat),
    }


@dataclass(frozen=True)
class Phases:
    """Where a run turns, as training steps.

    Args:
        sure_from: the first probe from which on held-out confidence is never below accuracy again;
            None where the run ends under-confident.
        steep_from, steep_until: the first and the last probe at which the sharpness is at least
            half of its largest value.
    """

    sure_from: int | None
    steep_from: int
    steep_until: int


def phases(history: History) -> Phases:
    """Find the phases of a run from its columns: warm-up, climb, plateau, decay.

    Calibration and curvature keep their own time: the warm-up, in which the network is
    under-confident on held-out images, lasts until `sure_from`; the sharpness climbs until
    `steep_from` and decays after `steep_until`. A run that never gets sharper than twice its start
    has `steep_from` 0.

    Args:
        history: with columns sharpness, test_confidence and test_accuracy, all finite.

    Returns:
        The steps.

    Raises:
        ValueError: a column is missing or not finite.

    Example:
        >>> rows = [(0, 2, 0.2, 0.1), (1, 4, 0.3, 0.6), (5, 9, 0.8, 0.7), (9, 3, 0.9, 0.7)]
        >>> names = ("step", "sharpness", "test_confidence", "test_accuracy")
        >>> phases(History([dict(zip(names, row)) for row in rows]))
        Phases(sure_from=5, steep_from=5, steep_until=5)
    """
    names = ("sharpness", "test_confidence", "test_accuracy")
    sharpness, confidence, accuracy = (history.column(name) for name in names)
    if not np.isfinite([sharpness, confidence, accuracy]).all():
        raise ValueError(f"history must have finite {', '.join(names)}, got NaN")
    steps = history.column("step")
    after_doubt = np.flatnonzero(confidence < accuracy).max(initial=-1) + 1
    steep = steps[sharpness >= sharpness.max() / 2]
    return Phases(
        int(steps[after_doubt]) if after_doubt < len(steps) else None, int(steep[0]), int(steep[-1])
    )


def published(column: str) -> dict[str, tuple[float, float]]:
    """The paper's row of Table 1: label of the optimizer -> mean and standard deviation.

    Raises:
        ValueError: not a row of the table.

    Example:
        >>> published("train_ece")["Muon"]
        (0.63, 0.26)
    """
    check_choice(column, "column", PAPER_TABLE_1)
    return {LABELS[optimizer]: values for optimizer, values in PAPER_TABLE_1[column].items()}


def table_1_text(sweep: Sweep) -> str:
    """Table 1 in Markdown: ours by Pearson and Spearman, the paper's row beneath.

    Args:
        sweep: the runs.

    Returns:
        Markdown with one column per optimizer.
    """
    optimizers = [o for o in FIVE if any(run.config.optimizer == o for run in sweep.runs)]
    rows = []
    cells = {
        method: {(e.column, e.optimizer): str(e) for e in table_1(sweep, method)}
        for method in ("pearson", "spearman")
    }
    for column, paper in PAPER_TABLE_1.items():
        name = QUANTITIES[column][0]
        for method, entries in cells.items():
            rows.append([f"{name}, {method}", *(entries[column, o] for o in optimizers)])
        published_cells = ("{:.2f} ± {:.2f}".format(*paper[o]) for o in optimizers)
        rows.append([f"*{name}, the paper's (Pearson, CIFAR-10)*", *published_cells])
    return markdown_table(["correlation with sharpness", *(LABELS[o] for o in optimizers)], rows)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        headings: of the columns; the first may be empty.
        rows: as many cells each.

    Returns:
        One line per row, a newline at the end.

    Example:
        >>> print(markdown_table(["", "ECE"], [["SGD", "0.1"]]), end="")
        | | ECE |
        |---|---|
        | SGD | 0.1 |
    """
    lines = [" | ".join(cells).lstrip() for cells in (headings, *rows)]
    head, *body = (f"| {line} |" for line in lines)
    return "\n".join([head, "|---|" + "---|" * (len(headings) - 1), *body]) + "\n"


def trajectories(sweep: Sweep, columns: Sequence[str]) -> MatplotlibFigure:
    """One panel per quantity and optimizer, one line per learning rate, both axes logarithmic.

    The line is the mean over seeds, the band their range; the darker, the larger the learning rate.

    Args:
        sweep: the runs.
        columns: the quantities, one row of panels each.

    Returns:
        The figure.

    Raises:
        ValueError: a run lacks a quantity.
    """
    labels = list(dict.fromkeys(run.config.label for run in sweep.runs))
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            len(columns),
            len(labels),
            figsize=(2.4 * len(labels) + 0.6, 1.8 * len(columns) + 0.5),
            sharex="col",
            sharey="row",
            squeeze=False,
        )
    for row, column in zip(axes, columns, strict=True):
        for ax, label in zip(row, labels, strict=True):
            _draw(ax, [run for run in sweep.runs if run.config.label == label], column)
            ax.label_outer()
        row[0].set_ylabel(QUANTITIES[column][0])
    for top, bottom, label in zip(axes[0], axes[-1], labels, strict=True):
        top.set_title(label)
        top.legend(title="learning rate", fontsize=6, title_fontsize=6)
        bottom.set_xlabel("training step")
    return fig


def write_report(sweep: Sweep, figure: str, folder: str | os.PathLike) -> list[Path]:
    """Write what a figure or table consists of: picture, table and record.

    Args:
        sweep: the runs that `plan` asked for.
        figure: one of `FIGURES`.
        folder: where FIGURE.png, FIGURE.md and FIGURE.json go.

    Returns:
        The paths written.
    """
    check_choice(figure, "figure", FIGURES)
    fig = trajectories(sweep, FIGURES[figure].columns)
    fig.suptitle(FIGURES[figure].title)
    return write_files(sweep, Path(folder) / figure, fig, _report_text(sweep, figure))


def write_files(sweep: Sweep, path: Path, fig: MatplotlibFigure, text: str) -> list[Path]:
    """Write a picture, a text and the record of a sweep, as path.png, path.md and path.json."""
    picture, page, record = (path.with_suffix(suffix) for suffix in (".png", ".md", ".json"))
    write_atomically(picture, png_bytes(fig))
    write_atomically(page, text.encode())
    sweep.save(record)
    return [picture, page, record]


def made_by(sweep: Sweep) -> str:
    """How a sweep was made, in Markdown: command, size, cost, machine, and which runs diverged."""
    made = sweep.runs[0].provenance
    seconds = sum(run.provenance["seconds"] for run in sweep.runs)
    text = f"`calibcourse {sweep.command}`: {len(sweep)} runs, {seconds / 3600:.1f} hours of "
    text += f"computing on {made['processor']} with torch {made['torch']}, {made['date']}.\n\n"
    for run in sweep.runs:
        if run.history.diverged_at is not None:
            text += f"- {run.config.key} diverged at step {run.history.diverged_at}.\n"
    return text


def _report_text(sweep: Sweep, figure: str) -> str:
    text = f"# {figure}: {FIGURES[figure].title}\n\n" + made_by(sweep)
    if any(run.config.optimizer in FIVE for run in sweep.runs):
        text += "\n" + table_1_text(sweep)
    return text


def _draw(ax: Axes, runs: Sequence[Run], column: str) -> None:
    """The lines of one panel."""
    color = QUANTITIES[column][1]
    rates = sorted({run.config.lr for run in runs})
    for shade, lr in zip(np.linspace(0.3, 1, len(rates)), rates, strict=True):
        histories = [run.history for run in runs if run.config.lr == lr]
        # Runs that diverged are shorter; the mean goes as far as all seeds do.
        length = min(len(history) for history in histories)
        steps = histories[0].column("step")[1:length]
        values = np.stack([history.column(column)[1:length] for history in histories])
        ax.plot(steps, values.mean(0), color=color, alpha=shade, label=f"{lr:.3g}")
        ax.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.2 * shade, lw=0)
    ax.set(xscale="log", yscale="log")


def _rounded(values: np.ndarray) -> list[float | None]:
    if values.dtype == np.int64:
        return values.tolist()
    return [float(f"{v:.{DIGITS}g}") if math.isfinite(v) else None for v in values.tolist()]


def _run(entry: dict[str, Any]) -> Run:
    """One run of a saved sweep; whatever is wrong with it raises something."""
    columns = entry["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    history = History([], {}, entry["diverged_at"]).to_dict() | {"rows": rows}
    if not isinstance(entry["provenance"], dict):
        raise TypeError("provenance must be an object")
    return Run(config_from_dict(entry["config"]), History.from_dict(history), entry["provenance"])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
