"""What a shift of the images does to a network: its diagram, its error, and the doubt beside it."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..data import Split, shifted
from ..data.shift import STRENGTHS, UNITS
from ..metrics import (
    accuracy,
    expected_calibration_error,
    mean_misconfidence,
    reliability_curve,
)
from .calibration import reliability_diagram
from .style import BOUND, TEST, WRONG, on_axes, panels


@torch.no_grad()
def shift_logits(model: nn.Module, split: Split, kind: str) -> list[Tensor]:
    """Logits of the images as they are, then under each strength of one kind of shift.

    Args:
        model: maps inputs to logits, in eval mode.
        split: the images; some thousand are shifted in a second.
        kind: of `calibcourse.data.shift.STRENGTHS`.

    Returns:
        1 + strengths tensors (N, K).

    Raises:
        ValueError: an unknown kind.
    """
    strengths = (0.0, *STRENGTHS.get(kind, ()))
    return [model(shifted(split.inputs, kind, strength)) for strength in strengths]


@on_axes()
def shift_band(
    logits: Sequence[Tensor],
    target: Tensor,
    kind: str,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Error rate, doubt u and ECE against the strength of a shift, in the band that u and err give.

    Args:
        logits: from `shift_logits`.
        target: (N,) int64.
        kind: of the shift.
        ax: where to draw.
        legend: say in the corner what the lines are.

    Returns:
        The axes; the band reaches from |u - err| to u + err (THEORY.md 4.3).
    """
    strengths = (0.0, *STRENGTHS[kind])
    error = [1 - float(accuracy(z, target)) for z in logits]
    doubt = [float(mean_misconfidence(z)) for z in logits]
    ece = [float(expected_calibration_error(z, target)) for z in logits]
    pairs = list(zip(doubt, error, strict=True))
    low, high = [abs(u - e) for u, e in pairs], [u + e for u, e in pairs]
    ax.fill_between(
        strengths, low, high, color=BOUND, alpha=0.3, lw=0, label="|u − err| to u + err"
    )
    ax.plot(strengths, error, color=WRONG, lw=1.5, label="error rate err")
    ax.plot(strengths, doubt, "--", color=TEST, lw=1.5, label="doubt u")
    ax.plot(strengths, ece, "o-", color=TEST, lw=2, ms=4, label="ECE")
    ax.set(xlabel=f"{kind} ({UNITS[kind]})", ylabel="share, or probability", ylim=(0, None))
    if legend:
        ax.legend(frameon=False, fontsize=8, loc="upper left")
    return ax


def shift_panel(
    axes: Sequence[Axes], logits: Sequence[Tensor], target: Tensor, kind: str, grade: int
) -> None:
    """The reliability diagram at one grade of a shift, beside error and doubt at all of them.

    Args:
        axes: two.
        logits: from `shift_logits`.
        target: (N,) int64.
        kind: of the shift.
        grade: 0, the images as they are, up to the number of strengths.
    """
    diagram, band = axes
    strength = (0.0, *STRENGTHS[kind])[grade]
    reliability_diagram(reliability_curve(logits[grade], target), ax=diagram)
    ece = float(expected_calibration_error(logits[grade], target))
    diagram.set_title(f"{kind} {strength:g}: ECE {ece:.3f}", fontsize=9.5)
    shift_band(logits, target, kind, ax=band)
    band.axvline(strength, color=WRONG, lw=1, ls=":")
    error = 1 - float(accuracy(logits[grade], target))
    doubt = float(mean_misconfidence(logits[grade]))
    band.set_title(f"error {error:.2f}, doubt {doubt:.2f}", fontsize=9.5)


def shift_grid(model: nn.Module, split: Split, grade: int = 3) -> Figure:
    """Static twin of the shift explorer: a column per kind, the diagram at one grade above.

    Args:
        model: maps inputs to logits, in eval mode.
        split: the images.
        grade: of the diagrams, 0 to the number of strengths.

    Returns:
        The figure.
    """
    fig, axes = panels(2, len(STRENGTHS), (2.9 * len(STRENGTHS), 5.8), sharey="row")
    for column, kind in zip(axes.T, STRENGTHS, strict=True):
        shift_panel(column, shift_logits(model, split, kind), split.target, kind, grade)
        if column[0] is not axes[0, 0]:
            for ax in column:
                ax.get_legend().remove()
                ax.set_ylabel("")
    return fig
