"""What optimizers do to a gradient, and runs compared at matched loss."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from .style import BOUND, CURVATURE, IDEAL, TRAIN, WRONG, array, on_axes, readable


@on_axes(width=4.6, height=3.6)
def sam_step(
    curvatures: tuple[float, float], start: tuple[float, float], rho: float, ax: Axes | None = None
) -> Axes:
    """SAM's two moves on L = ½(a x² + b y²): the climb, and the gradient found at its end.

    Args:
        curvatures: a and b.
        start: where the step begins, not the minimum at (0, 0).
        rho: length of the climb.
        ax: where to draw.

    Returns:
        The axes; both descents are drawn with the same learning rate.
    """
    bend, begin = np.array(curvatures), np.array(start)
    here = bend * begin
    top = begin + rho * here / np.linalg.norm(here)
    there = bend * top
    rate = 0.6 * np.linalg.norm(begin) / np.linalg.norm(there)
    arrows = (
        ("SAM", begin - rate * there, TRAIN, "right", 4),
        ("gradient descent", begin - rate * here, IDEAL, "left", -12),
        ("climb ρ", top, BOUND, "left", 4),
    )
    for name, head, color, side, lift in arrows:
        style = {"arrowstyle": "-|>", "color": color, "lw": 2.2, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", head, begin, arrowprops=style)
        ax.annotate(name, head, xytext=(0, lift), textcoords="offset points", ha=side,
                    color=readable(color), fontsize=9)  # fmt: skip
    ends = np.stack([begin, np.zeros(2), *(head for _, head, *_ in arrows)])
    low, high = ends.min(axis=0) - 0.45, ends.max(axis=0) + 0.45
    x, y = np.meshgrid(*(np.linspace(*limits, 121) for limits in zip(low, high, strict=True)))
    loss = (bend[0] * x**2 + bend[1] * y**2) / 2
    ax.contour(x, y, np.sqrt(loss), levels=10, colors="#CFCFCF", linewidths=0.9)
    ax.plot(*begin, "o", color=WRONG, ms=5)
    ax.plot(0, 0, "+", color=WRONG, ms=9)
    ax.set(xlabel="steep direction", ylabel="flat direction", aspect="equal")
    ax.grid(visible=False)
    return ax


@on_axes()
def amplification(
    eigenvalues: Tensor, factors: Tensor, predicted: Tensor, ax: Axes | None = None
) -> Axes:
    """By how much an update's components along eigenvectors differ from the gradient's.

    Args:
        eigenvalues: (k,) of the curvature.
        factors: (k,) measured, update over gradient.
        predicted: (k,) by theory.
        ax: where to draw.

    Returns:
        The axes.
    """
    eigenvalues, factors, predicted = map(array, (eigenvalues, factors, predicted))
    ax.plot(eigenvalues, predicted, "-", color=BOUND, lw=1.8, label="$1 + \\rho\\lambda/\\|g\\|$")
    ax.plot(eigenvalues, factors, "o", color=CURVATURE, label="measured")
    ax.axhline(1, color=IDEAL, ls="--", lw=1)
    ax.set(xlabel="eigenvalue λ of the curvature", ylabel="component, SAM / gradient")
    ax.legend(frameon=False, loc="upper left")
    return ax


@on_axes()
def components(
    before: Tensor, after: Tensor, names: tuple[str, str], ax: Axes | None = None
) -> Axes:
    """Sizes of an update's components along the steepest directions, before and after.

    Args:
        before, after: (k,) components, the steepest direction first.
        names: of the two.
        ax: where to draw.

    Returns:
        The axes.
    """
    rank = np.arange(1, len(before) + 1)
    ax.bar(rank, array(before.abs()), 0.8, color=IDEAL, alpha=0.45, label=names[0])
    ax.plot(rank, array(after.abs()), "o", color=CURVATURE, ms=7, label=names[1])
    ax.set(xlabel="eigenvector, the steepest first", ylabel="|component|", xticks=rank)
    ax.legend(frameon=False)
    return ax


@on_axes()
def shares(values: Mapping[str, float], xlabel: str, ax: Axes | None = None) -> Axes:
    """One horizontal bar per name, with its share written beside it.

    Args:
        values: name -> share in [0, 1], drawn from top to bottom.
        xlabel: of what.
        ax: where to draw.

    Returns:
        The axes.
    """
    ax.barh(list(values), list(values.values()), color=CURVATURE, alpha=0.8)
    for height, value in enumerate(values.values()):
        ax.annotate(f" {value:.0%}", (value, height), va="center", fontsize=9)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.12), xlabel=xlabel)
    ax.grid(axis="y", visible=False)
    return ax


@on_axes()
def every_run(
    values: Mapping[str, np.ndarray],
    ylabel: str,
    color: str,
    ax: Axes | None = None,
    log: bool = False,
) -> Axes:
    """One dot per run, a column per optimizer, with the median: what a spread looks like.

    Args:
        values: optimizer -> (learning rates, seeds) values, as from
            `calibcourse.reproduce.by_label`.
        ylabel: quantity and unit.
        color: one of this module's constants; the darker, the larger the learning rate.
        ax: where to draw.
        log: logarithmic vertical axis.

    Returns:
        The axes; infinite values are triangles at the upper edge.
    """
    for place, grid in enumerate(values.values()):
        shades = np.linspace(1, 0.3, len(grid))[::-1]  # a single one is dark
        offsets = 0.64 * ((np.arange(len(grid)) + 0.5) / len(grid) - 0.5)  # a single one is central
        for shade, offset, row in zip(shades, offsets, grid, strict=True):
            seen = row[np.isfinite(row)]
            ax.plot([place + offset] * len(seen), seen, "o", ms=4, color=color, alpha=shade)
            if np.isinf(row).any():
                ax.plot(place + offset, 0.99, "^", color=color, alpha=shade, clip_on=False,
                        transform=ax.get_xaxis_transform())  # fmt: skip
        known = grid[~np.isnan(grid)]
        if len(known) and np.isfinite(median := np.median(known)):
            ax.hlines(median, place - 0.38, place + 0.38, color=WRONG, lw=1.6)
    ax.set_xticks(range(len(values)), list(values), rotation=40, ha="right")
    ax.set_ylabel(ylabel)
    if max(map(len, values.values())) > 1:
        ax.set_xlabel("the darker, the larger the learning rate")
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="x", visible=False)
    return ax
