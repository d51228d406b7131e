"""How calibration error and sharpness go together along runs and across them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..history import History
from .style import (
    BOUND,
    CURVATURE,
    IDEAL,
    MARKERS,
    STYLE,
    TEST,
    TRAIN,
    WRONG,
    from_step_zero,
    on_axes,
    readable,
)


@on_axes()
def correlation_dots(
    values: Mapping[str, Mapping[str, Mapping[Any, Sequence[float]]]],
    colors: Mapping[str, str],
    published: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Correlations of many runs, one dot each, in columns of columns.

    Args:
        values: name of a set -> group, such as an optimizer -> column, such as a learning rate ->
            correlations, such as one per seed. Every set has the same groups.
        colors: name of a set -> colour, one of this module's constants.
        published: group -> mean and standard deviation to draw beside ours.
        ax: where to draw.

    Returns:
        The axes; the columns of a group stand from left to right in the order given, and below each
        group how many dots it has in the first set.
    """
    groups = list(next(iter(values.values())))
    lanes = len(values) + (published is not None)
    for lane, (name, by_group) in enumerate(values.items()):
        for place, group in enumerate(groups):
            columns = list(by_group[group].values())
            left = place - 0.4 + 0.8 * lane / lanes
            x = left + 0.8 / lanes * (np.arange(len(columns)) + 0.5) / len(columns)
            for position, series in zip(x, columns, strict=True):
                ax.plot([position] * len(series), series, "o", ms=4, mew=0, alpha=0.75,
                        color=colors[name])  # fmt: skip
        ax.plot([], [], "o", ms=4, mew=0, color=colors[name], label=name)
    if published is not None:
        x = np.arange(len(groups)) + 0.4 - 0.4 / lanes
        means, stds = zip(*(published[group] for group in groups), strict=True)
        ax.errorbar(x, means, stds, fmt="D", ms=5, color=IDEAL, capsize=3,
                    label="the paper, CIFAR-10")  # fmt: skip
    ax.axhline(0, color=IDEAL, lw=0.8)
    n_runs = [sum(map(len, next(iter(values.values()))[group].values())) for group in groups]
    ax.set_xticks(
        range(len(groups)), [f"{group}\n{n} runs" for group, n in zip(groups, n_runs, strict=True)]
    )
    ax.grid(axis="x", visible=False)
    ax.set(ylim=(-1.08, 1.08), ylabel="correlation with sharpness")
    ax.legend(fontsize=8, framealpha=0.8)
    return ax


@on_axes()
def doubt_and_error(history: History, split: str, ax: Axes | None = None) -> Axes:
    """Mean misconfidence u and error rate along a run, with the ECE that lies between them.

    Args:
        history: with columns SPLIT_confidence, SPLIT_accuracy and SPLIT_ece.
        split: "train", "validation" or "test".
        ax: where to draw.

    Returns:
        The axes: the shaded height is |u - err|.
    """
    steps, color = history.column("step"), TRAIN if split == "train" else TEST
    doubt, error = (1 - history.column(f"{split}_{name}") for name in ("confidence", "accuracy"))
    ax.fill_between(steps, doubt, error, color=BOUND, alpha=0.35, lw=0, label="|u − err|")
    ax.plot(steps, doubt, "--", color=color, lw=1.5, label="misconfidence u")
    ax.plot(steps, error, color=WRONG, lw=1.5, label="error rate err")
    ax.plot(steps, history.column(f"{split}_ece"), color=color, lw=2.2, label=f"{split} ECE")
    ax.set(ylim=(0, 1), ylabel="share, or probability")
    ax.legend(frameon=False, fontsize=8)
    return from_step_zero(ax)


def window_panel(
    axes: Sequence[Axes], history: History, used: Sequence[int], values: Mapping[str, float]
) -> None:
    """A run with the probes that a correlation uses, above what the correlation then sees.

    Args:
        axes: two: for the run, and for calibration error against sharpness.
        history: the run.
        used: steps of the probes.
        values: column, such as "train_ece" -> its correlation with sharpness on these probes.
    """
    above, below = axes
    steps, sharpness = history.column("step"), history.column("sharpness")
    chosen, largest = np.isin(steps, used), 0.0
    curves = {"sharpness": (sharpness, CURVATURE)}
    for column, value in values.items():
        errors, color = history.column(column), TRAIN if column.startswith("train") else TEST
        curves[column] = errors, color
        largest = max(largest, errors.max())
        name = column.replace("_", " ").replace("ece", "ECE").replace("kce", "KCE")
        below.plot(sharpness[chosen], errors[chosen], "-", lw=0.6, alpha=0.5, color=color)
        below.plot(sharpness[chosen], errors[chosen], "o", ms=3, color=color,
                   label=f"{name}: r = {value:+.2f}")  # fmt: skip
    for series, color in curves.values():
        above.plot(steps, series / series.max(), color=color, lw=1, alpha=0.6)
        above.plot(steps[chosen], (series / series.max())[chosen], "o", ms=3, color=color)
    above.annotate("sharpness", (steps[sharpness.argmax()], 1.02), ha="center", va="bottom",
                   color=readable(CURVATURE), fontsize=8)  # fmt: skip
    above.set(ylabel="share of its largest", ylim=(0, 1.15))
    # The same axes for every choice of probes, so that only the points change.
    below.set(xlim=(0, 1.05 * sharpness.max()), ylim=(0, 1.25 * largest))
    below.set(xlabel="sharpness $\\lambda_{\\max}$", ylabel="calibration error")
    below.legend(frameon=False, fontsize=8, loc="upper right")
    from_step_zero(above)


def window_grid(
    history: History, windows: Mapping[str, tuple[Sequence[int], Mapping[str, float]]]
) -> Figure:
    """Static twin of the window explorer: one column per choice of probes.

    Args:
        history: the run.
        windows: title -> steps used, and the correlations on them.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            2, len(windows), figsize=(2.9 * len(windows), 5.0), squeeze=False, sharey="row"
        )
    for column, (title, (used, values)) in zip(axes.T, windows.items(), strict=True):
        window_panel(column, history, used, values)
        column[0].set_title(title)
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    return fig


@on_axes(width=4.6, height=4.2)
def pairing_matrix(matrix: np.ndarray, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Correlations of one quantity of every run with another quantity of every run.

    Args:
        matrix: (n, n) in [-1, 1]; the diagonal holds each run with itself.
        labels: n names of groups, equal ones next to each other.
        ax: where to draw.

    Returns:
        The axes: blue is -1, white 0, red 1, in steps of a tenth (a palette of so few colours stays
        what it is in a small PNG); black lines part the groups.
    """
    image = ax.imshow(
        matrix, cmap=plt.get_cmap("RdBu_r", 20), vmin=-1, vmax=1, interpolation="nearest"
    )
    starts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    for start in starts[1:]:
        ax.axhline(start - 0.5, color=WRONG, lw=0.7)
        ax.axvline(start - 0.5, color=WRONG, lw=0.7)
    middles = [(a + b - 1) / 2 for a, b in pairwise([*starts, len(labels)])]
    names = [labels[start] for start in starts]
    ax.set_xticks(middles, names)
    ax.set_yticks(middles, names)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    return ax


@on_axes()
def across_runs(
    sharpness: Mapping[str, Sequence[float]],
    errors: Mapping[str, Mapping[str, Sequence[float]]],
    ax: Axes | None = None,
) -> Axes:
    """Calibration error against sharpness at one moment, one dot per run.

    Args:
        sharpness: optimizer -> one value per run.
        errors: "train ECE" or "test ECE" -> optimizer -> one value per run.
        ax: where to draw.

    Returns:
        The axes, both logarithmic; the shape of a dot tells the optimizer.
    """
    markers = dict(zip(sharpness, MARKERS, strict=False))
    for name, groups in errors.items():
        color = TRAIN if name.startswith("train") else TEST
        for optimizer, values in groups.items():
            ax.plot(sharpness[optimizer], values, markers[optimizer], ms=5, color=color, mew=0,
                    alpha=0.75)  # fmt: skip
    handles = [
        ax.plot([], [], marker, ms=5, color=IDEAL, label=optimizer)[0]
        for optimizer, marker in markers.items()
    ]
    handles += [
        Patch(color=TRAIN if name.startswith("train") else TEST, label=name) for name in errors
    ]
    ax.legend(
        handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="sharpness $\\lambda_{\\max}$", ylabel="calibration error")
    return ax
