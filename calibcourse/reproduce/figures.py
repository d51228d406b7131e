"""Figures of sweeps: their trajectories, and what came of the comparison of methods."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .. import plots
from ..plots import BOUND, CURVATURE, IDEAL, MARKERS, TEST, TRAIN
from .configs import LABELS, METHODS, ComparisonConfig, TrajectoryConfig
from .outcomes import REMEDIES, RULES, TEMPERATURE, cell_runs, grid_values, outcomes, read
from .paper import published
from .plans import GRID
from .records import Run, Sweep
from .sign import STOPS, correlation_by_stop_over_peak

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
# What a plane of matched loss can show: axis label, colour and range of the axis.
MATCHED = {
    "train_ece": ("train ECE", TRAIN, (3e-4, 0.7)),
    "test_ece": ("test ECE", TEST, (3e-3, 0.7)),
    "sharpness": ("sharpness $\\lambda_{\\max}$", CURVATURE, (0.05, 100)),
}


def trajectories_figure(sweep: Sweep[TrajectoryConfig], columns: Sequence[str]) -> Figure:
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
    labels = sweep.labels
    size = 2.4 * len(labels) + 0.6, 1.8 * len(columns) + 0.5
    fig, axes = plots.panels(len(columns), len(labels), size, sharex="col", sharey="row")
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


def _draw(ax: Axes, runs: Sequence[Run[TrajectoryConfig]], column: str) -> None:
    """The lines of one panel."""
    color = QUANTITIES[column][1]
    rates = sorted({run.config.lr for run in runs})
    for shade, lr in zip(np.linspace(0.4, 1, len(rates)), rates, strict=True):
        histories = [run.history for run in runs if run.config.lr == lr]
        # Runs that diverged are shorter; the mean goes as far as all seeds do. Step 0 has no place
        # on a logarithmic axis.
        steps = reduce(np.intersect1d, (history.column("step") for history in histories))[1:]
        values = np.stack([h.column(column)[np.isin(h.column("step"), steps)] for h in histories])
        ax.plot(steps, values.mean(0), color=color, alpha=shade, label=f"{lr:.3g}")
        ax.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.2 * shade, lw=0)
    ax.set(xscale="log", yscale="log")


def stops_figure(sweeps: Mapping[str, Sweep[TrajectoryConfig]]) -> Figure:
    """Correlation of ECE with sharpness against the stopping point, beside the paper's values.

    A panel for training and test ECE of every data set: a line per optimizer, the median over its
    runs, over a band from the 10 % to the 90 % quantile of all runs. Wedges on the right are the
    paper's values, on CIFAR-10, in the optimizers' colours; a dot is where a line passes its value.

    Args:
        sweeps: title of a data set -> its runs, of the paper's five optimizers.

    Returns:
        The figure.

    Raises:
        ValueError: a run lacks a quantity.
    """
    size = 4.6 * len(sweeps), 5.2
    fig, axes = plots.panels(2, len(sweeps), size, sharex=True)
    for row, column in zip(axes, ("train_ece", "test_ece"), strict=True):
        for ax, (title, sweep) in zip(row, sweeps.items(), strict=True):
            _draw_stops(ax, sweep, column)
            ax.set_title(f"{title}: {QUANTITIES[column][0]}")
            ax.label_outer()
        row[0].set_ylabel("correlation with sharpness")
    for ax in axes[-1]:
        ax.set_xlabel("run stopped at … times the step of its sharpness peak")
    axes[0][0].legend(fontsize=7, ncols=2, loc="lower left")
    return fig


def _draw_stops(ax: Axes, sweep: Sweep[TrajectoryConfig], column: str) -> None:
    """One panel of `stops_figure`. Where fewer than half of the runs are left, a line ends."""
    everything = []
    for number, label in enumerate(sweep.labels):
        runs = sweep.select(label=label).runs
        r = np.stack([correlation_by_stop_over_peak(run, column) for run in runs])
        everything.append(r)
        enough = np.isfinite(r).mean(0) >= 0.5
        color = plots.readable(f"C{number}")
        stops, median = STOPS[enough], np.nanmedian(r[:, enough], axis=0)
        ax.plot(stops, median, color=color, lw=1.6, label=label)
        if label in published(column):
            above = median - published(column)[label][0]
            ax.annotate("◂", (1, published(column)[label][0]), color=color, va="center",
                        xycoords=("axes fraction", "data"), annotation_clip=False)  # fmt: skip
            passed = np.flatnonzero(np.diff(np.sign(above)))
            ax.plot(stops[passed], median[passed], "o", ms=5, color=color)
    r = np.concatenate(everything)
    enough = np.isfinite(r).mean(0) >= 0.5
    low, high = np.nanquantile(r[:, enough], [0.1, 0.9], axis=0)
    ax.fill_between(STOPS[enough], low, high, color=IDEAL, alpha=0.15, lw=0)
    ax.axhline(0, color=IDEAL, lw=0.8)
    ax.axvline(1, color=CURVATURE, ls="--", lw=1.2)
    ax.set(xscale="log", ylim=(-1.05, 1.05))
    ax.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16], ["¼", "½", "1", "2", "4", "8", "16"], minor=False)


def recorded_sharpness(
    sweep: Sweep[TrajectoryConfig], learning_rate: float, ax: Axes | None = None
) -> Axes:
    """All seeds of a recorded sweep at one learning rate, against the edge 2/η.

    Args:
        sweep: runs of gradient descent.
        learning_rate: one that the sweep holds.
        ax: where to draw.

    Returns:
        The axes.
    """
    runs = sweep.select(lr=learning_rate).runs
    steps = runs[0].history.column("step")
    series = [run.history.column("sharpness") for run in runs]
    ax = plots.edge_of_stability(steps, series, learning_rate, ax)
    ax.set_title(f"η = {learning_rate:g}, {len(runs)} seeds")
    return ax


def learning_rate_grid(sweep: Sweep[TrajectoryConfig]) -> Figure:
    """Static twin of the learning-rate explorer: one panel per recorded learning rate.

    Args:
        sweep: runs of gradient descent.

    Returns:
        The figure.
    """
    rates = sorted({run.config.lr for run in sweep.runs})
    fig, axes = plots.figure(len(rates), width=3.0)
    for ax, rate in zip(axes, rates, strict=True):
        recorded_sharpness(sweep, rate, ax=ax)
    return fig


def matched_loss_plane(
    sweep: Sweep[TrajectoryConfig],
    label: str,
    learning_rate: float | None = None,
    column: str = "train_ece",
    ax: Axes | None = None,
) -> Axes:
    """A quantity against the training loss, one optimizer before SGD in grey: time runs right.

    Args:
        sweep: runs of several optimizers, SGD among them.
        label: of the optimizer in colour.
        learning_rate: its learning rate; None draws all, the darker, the larger.
        column: one of `MATCHED`.
        ax: where to draw.

    Returns:
        The axes, both logarithmic. For the training ECE a dashed line shows ECE = loss, its bound.
    """
    ax = plots.figure(1, 5.4, 3.8)[1][0] if ax is None else ax
    ylabel, color, limits = MATCHED[column]
    runs = [run for run in sweep.select(label=label).runs
            if learning_rate in (None, run.config.lr)]  # fmt: skip
    rates = sorted({run.config.lr for run in runs})
    shade = dict(zip(rates, np.linspace(1, 0.35, len(rates))[::-1], strict=True))
    lines: list[tuple[Run[TrajectoryConfig], dict[str, Any]]]
    lines = [(run, {"color": "#BBBBBB", "lw": 1.0}) for run in sweep.select(label="SGD").runs]
    lines += [(run, {"color": color, "lw": 1.3, "alpha": shade[run.config.lr]}) for run in runs]
    for run, style in lines:
        loss, value = run.history.column("train_loss")[1:], run.history.column(column)[1:]
        ax.plot(loss, value, **style)
    low, high = 3e-4, 2.6
    if column == "train_ece":
        ax.plot([low, high], [low, high], "--", color=BOUND, lw=1.8)
        ax.annotate("ECE = loss ", (1e-3, 1e-3), ha="right", va="top", fontsize=8,
                    color=plots.readable(BOUND))  # fmt: skip
    ax.set(xscale="log", yscale="log", xlim=(high, low), ylim=limits, ylabel=ylabel,
           xlabel="training loss (nats)")  # fmt: skip
    ax.set_title(f"{label}, SGD in grey")
    return ax


def matched_loss_grid(
    sweep: Sweep[TrajectoryConfig], labels: Sequence[str], columns: Sequence[str]
) -> Figure:
    """Static twin of the matched-loss explorer: one panel per quantity and optimizer.

    Args:
        sweep: runs of several optimizers, SGD among them.
        labels: of the optimizers, one column of panels each.
        columns: of `MATCHED`, one row of panels each.

    Returns:
        The figure.
    """
    size = 2.9 * len(labels), 2.5 * len(columns)
    fig, axes = plots.panels(len(columns), len(labels), size)
    for column, row in zip(columns, axes, strict=True):
        for label, ax in zip(labels, row, strict=True):
            matched_loss_plane(sweep, label, column=column, ax=ax)
            ax.label_outer()
            if column != columns[0]:
                ax.set_title("")
    return fig


def comparison_figure(sweep: Sweep[ComparisonConfig]) -> Figure:
    """Test ECE and accuracy of every method: one column of panels per optimizer, a dot per seed.

    Args:
        sweep: runs of the comparison.

    Returns:
        The figure; filled dots are the final step, open ones the best validation step.
    """
    optimizers = sweep.optimizers
    methods = [m for m in METHODS if m in sweep.labels]
    methods += [TEMPERATURE] * ("CE" in methods)
    size = 2.5 * len(optimizers) + 1.2, 4.6
    fig, axes = plots.panels(2, len(optimizers), size, sharey="row", sharex=True)
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


def remedies_figure(sweep: Sweep[ComparisonConfig]) -> Figure:
    """Mean robust margin against test ECE under every remedy, one panel per optimizer.

    Args:
        sweep: runs of the comparison.

    Returns:
        The figure; one mark per seed, filled where the training itself looked at robust margins.
    """
    optimizers = sweep.optimizers
    size = 2.6 * len(optimizers) + 1.8, 3.2
    fig, axes = plots.panels(1, len(optimizers), size, sharex=True, sharey=True)
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
    legend = axes[0, -1].legend(
        frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5),
        title="filled: attacks in training",
    )  # fmt: skip
    legend.get_title().set_fontsize(8)
    return fig


def grid_figure(sweep: Sweep[ComparisonConfig], rule: str = "final") -> Figure:
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
    fig, axes = plots.panels(1, len(panels), (3.3 * len(panels), 3.1))
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
            Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=2)
        )
        ax.set_xticks(range(len(GRID["smooth_weight"])), [f"{w:g}" for w in GRID["smooth_weight"]])
        ax.set_yticks(range(len(GRID["robust_weight"])), [f"{w:g}" for w in GRID["robust_weight"]])
        ax.set(title=title, xlabel="$\\lambda_s$")
        ax.grid(visible=False)
    axes[0, 0].set_ylabel("$\\lambda_r$")
    return fig


def weights_panel(
    sweep: Sweep[ComparisonConfig],
    robust_weight: float,
    smooth_weight: float,
    axes: Sequence[Axes],
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
    chosen = cell_runs(sweep, robust_weight, smooth_weight)
    plain = cell_runs(sweep, 0.0, 0.0)
    for runs, color, width in ((plain, IDEAL, 0.8), (chosen, TEST, 1.6)):
        for run in runs:
            steps, ece = (run.history.column(name) for name in ("step", "validation_ece"))
            way.plot(steps, ece, color=color, lw=width, alpha=0.8)
            stop = [read(run, name, "best") for name in ("step", "validation_ece")]
            way.plot(*stop, "o", ms=5, mfc="white", mec=color)
    way.set(xlabel="training step", ylabel="validation ECE", ylim=(0, None))
    way.set_title("grey: cross-entropy; circles: best validation step", fontsize=9)
    for runs, color, size in ((list(sweep.runs), IDEAL, 10), (chosen, TEST, 40)):
        for rule, fill in (("final", color), ("best", "white")):
            x, y = ([read(r, c, rule) for r in runs] for c in ("test_ece", "test_accuracy"))
            end.scatter(x, y, s=size, facecolor=fill, edgecolor=color, alpha=0.8)
    losses = grid_values(sweep, "validation_loss").flatten()
    rank = 1 + int((losses < np.mean([read(r, "validation_loss", "final") for r in chosen])).sum())
    end.set(xlabel="test ECE", ylabel="test accuracy", xlim=(0, None))
    end.set_title(f"filled: final step. Validation loss: rank {rank} of {len(losses)}", fontsize=9)
