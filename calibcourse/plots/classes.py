"""Over-confidence class by class: what the average over all samples hides."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..metrics import (
    ClassOverConfidence,
    class_over_confidence,
    confidence_and_correct,
    expected_calibration_error,
    noise_floor,
)
from .style import BOUND, IDEAL, array, on_axes, panels

_N_DRAWS = 200  # for the verdict in a title; its band's ends move by a twentieth of its width


@on_axes(width=4.6, height=3.6)
def class_gaps(found: ClassOverConfidence, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Mean confidence - accuracy of each predicted class, with its 95 % interval.

    Args:
        found: from `class_over_confidence`.
        classes: K names.
        ax: where to draw.

    Returns:
        The axes. Classes whose interval leaves out 0 are orange, the others grey; the title says
        how many there are and how many chance explains.
    """
    rows = np.arange(len(classes))
    low, middle, high = map(array, (found.low, found.over_confidence, found.high))
    off = np.isin(rows, array(found.outside))
    for chosen, color in ((off, BOUND), (~off, IDEAL)):
        ax.hlines(rows[chosen], low[chosen], high[chosen], color=color, lw=2.5, alpha=0.8)
        ax.plot(middle[chosen], rows[chosen], "o", ms=5, color=color)
    ax.axvline(0, color=IDEAL, ls="--", lw=1)
    ax.set_yticks(rows, classes)
    ax.set(ylim=(len(classes) - 0.5, -0.5), xlabel="confidence − accuracy where it says so")
    some = "1 class" if off.sum() == 1 else f"{off.sum()} classes"
    ax.set_title(f"{some} off, by chance at most {found.at_most_by_chance}")
    return ax


def case_grid(
    cases: Mapping[str, Tensor],
    target: Tensor,
    classes: Sequence[str],
    temperatures: Sequence[float] = (1.0, 2.2),
) -> Figure:
    """Static twin of the case explorer: rows are temperatures, columns cases.

    Args:
        cases: name -> (N, K) logits.
        target: (N,) int64 labels, of all of them.
        classes: K names.
        temperatures: that the logits are divided by, one row each.

    Returns:
        The figure.
    """
    fig, axes = panels(
        len(temperatures),
        len(cases),
        (3.4 * len(cases), 3.3 * len(temperatures)),
        sharex=True,
        sharey=True,
    )
    for row, temperature in zip(axes, temperatures, strict=True):
        for ax, (name, logits) in zip(row, cases.items(), strict=True):
            class_gaps(class_over_confidence(logits / temperature, target), classes, ax=ax)
            ax.set_title(case_title(name, logits / temperature, target, temperature), fontsize=9.5)
            ax.label_outer()
    return fig


def case_title(name: str, logits: Tensor, target: Tensor, temperature: float) -> str:
    """Name, temperature, ECE of the logits as given, and whether it lies in the noise."""
    ece = float(expected_calibration_error(logits, target))
    confidence, _ = confidence_and_correct(logits, target)
    place = "in" if ece <= noise_floor(confidence, n_draws=_N_DRAWS).high else "above"
    return f"{name}, T = {temperature:.2f}\nECE {ece:.3f}, {place} the noise"
