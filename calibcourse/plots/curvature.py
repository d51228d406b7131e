"""Eigenvalues, what they are made of, and the edge of stability."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from .style import BOUND, CURVATURE, IDEAL, WRONG, array, on_axes, readable


@on_axes()
def spectrum(spectra: Mapping[str, Tensor], ax: Axes | None = None) -> Axes:
    """Eigenvalues from the largest to the smallest, against the logarithm of their rank.

    Args:
        spectra: label -> (d,) eigenvalues in ascending order; the first label gets the colour of
            curvature, the others are drawn black.
        ax: where to draw.

    Returns:
        The axes; the vertical one shows both signs.
    """
    for index, (label, values) in enumerate(spectra.items()):
        values = array(values.flip(0))
        style = {"color": WRONG, "lw": 1.2, "ls": "--"} if index else {"color": CURVATURE, "lw": 3}
        ax.plot(np.arange(1, len(values) + 1), values, label=label, **style)
    ax.axhline(0, color=IDEAL, lw=0.8)
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.set(xscale="log", xlabel="rank, from the largest down", ylabel="eigenvalue")
    ax.legend(frameon=False, loc="lower left")
    return ax


@on_axes()
def float32_error(
    margins: Sequence[float], errors: Mapping[str, Sequence[float]], ax: Axes | None = None
) -> Axes:
    """Relative error of a computation in 32-bit floats against the margin.

    Args:
        margins: in logits.
        errors: label -> one relative error per margin.
        ax: where to draw.

    Returns:
        The axes; the grey line is the unit roundoff of float32.
    """
    for (label, values), color in zip(errors.items(), (WRONG, CURVATURE), strict=True):
        ax.plot(array(margins), array(values), "o-", ms=4, color=color, label=label)
    ax.axhline(2**-24, color=IDEAL, ls="--", lw=1, label="rounding of one number")
    ax.set(yscale="log", xlabel="margin (logits)", ylabel="relative error in float32")
    ax.legend(frameon=False)
    return ax


@on_axes()
def edge_of_stability(
    steps: np.ndarray,
    sharpness: np.ndarray | Sequence[np.ndarray],
    learning_rate: float,
    ax: Axes | None = None,
) -> Axes:
    """Sharpness along gradient descent against the edge 2/η.

    Args:
        steps: (T,) training steps.
        sharpness: (T,) values, or one such array per seed.
        learning_rate: η.
        ax: where to draw.

    Returns:
        The axes.
    """
    for series in np.atleast_2d(sharpness):
        ax.plot(steps, series, color=CURVATURE, lw=1.6, alpha=0.8)
    ax.axhline(2 / learning_rate, color=BOUND, ls="--", lw=1.5)
    ax.annotate(f"2/η = {2 / learning_rate:g}", (steps[-1], 2 / learning_rate), ha="right",
                va="bottom", color=readable(BOUND), fontsize=9)  # fmt: skip
    ax.set(xlabel="training step", ylabel="sharpness $\\lambda_{\\max}$", ylim=(0, None))
    return ax


@on_axes()
def against_margin(margin: Tensor, values: Tensor, name: str, ax: Axes | None = None) -> Axes:
    """One positive quantity per image against the image's margin, logarithmic.

    Args:
        margin: (N,), in logits.
        values: (N,), positive.
        name: of the quantity.
        ax: where to draw.

    Returns:
        The axes.
    """
    ax.scatter(array(margin), array(values), s=6, lw=0, alpha=0.6, color=CURVATURE)
    ax.set(yscale="log", xlabel="true margin m (logits)", ylabel=name)
    return ax
