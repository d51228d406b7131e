"""Margins, clean and attacked, and the tail that they bound."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from ..attacks import RobustMargin, robust_margin
from ..bounds import (
    TailBounds,
)
from ..data import Split
from ..margins import true_margin
from .style import BOUND, IDEAL, MARGIN, STYLE, TEST, WRONG, array, draw_image, on_axes


@on_axes()
def margin_histogram(
    margins: Mapping[str, Tensor],
    ax: Axes | None = None,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Histograms of margins over each other, the first filled, the others as outlines.

    Args:
        margins: label -> (N,) margins, in logits.
        ax: where to draw.
        limits: of the horizontal axis, where pictures are to be compared; what lies beyond is
            counted in the outermost bars. None takes those of the margins.

    Returns:
        The axes; heights are shares of the images, so that sets of unlike size compare.
    """
    values = {label: array(margin) for label, margin in margins.items()}
    together = np.concatenate(list(values.values()))
    low, high = limits or (together.min(), together.max())
    bins = np.linspace(low, high, 41)
    fills = ({"alpha": 0.55}, {"histtype": "step", "lw": 2, "color": WRONG})
    for index, (label, margin) in enumerate(values.items()):
        weights = np.full(len(margin), 1 / len(margin))
        style = {"color": MARGIN} | fills[min(index, 1)]
        ax.hist(margin.clip(low, high), bins, weights=weights, label=label, **style)
    ax.axvline(0, color=IDEAL, ls="--", lw=1)
    ax.set(xlabel="true margin m (logits)", ylabel="share of the images", xlim=limits)
    ax.legend(loc="upper left", frameon=False)
    return ax


@on_axes()
def margin_scatter(clean: Tensor, robust: Tensor, ax: Axes | None = None) -> Axes:
    """Robust against clean margin, one point per image.

    Args:
        clean: (N,) margins, in logits.
        robust: (N,) robust margins, in logits.
        ax: where to draw.

    Returns:
        The axes; images that are right but not robustly so are drawn black.
    """
    clean, robust = array(clean), array(robust)
    turned = (clean > 0) & (robust < 0)
    ax.scatter(clean[~turned], robust[~turned], s=6, color=MARGIN, alpha=0.6, lw=0)
    ax.scatter(clean[turned], robust[turned], s=6, color=WRONG, alpha=0.6, lw=0)
    low, high = min(robust.min(), clean.min()), clean.max()
    ax.plot([low, high], [low, high], color=IDEAL, lw=1)
    ax.axhline(0, color=IDEAL, ls="--", lw=1)
    ax.set(xlabel="clean margin (logits)", ylabel="robust margin (logits)")
    return ax


@on_axes()
def tail_band(margin: Tensor, bounds: TailBounds, ax: Axes | None = None) -> Axes:
    """Error probability 1 - p_y of real images inside the band their margins allow.

    Args:
        margin: (N,) true margins, in logits.
        bounds: from `softmax_tail_bounds` for the same images.
        ax: where to draw.

    Returns:
        The axes: a filled band for B.3+ and dashed lines for the paper's B.3.
    """
    x = array(margin)
    order = x.argsort()
    x = x[order]
    line = {name: array(getattr(bounds, name))[order]
            for name in ("lower", "value", "upper", "paper_lower", "paper_upper")}  # fmt: skip
    ax.fill_between(x, line["lower"], line["upper"], color=BOUND, alpha=0.35, lw=0,
                    label="B.3⁺, this course")  # fmt: skip
    ax.plot(x, line["paper_lower"], "--", color=IDEAL, lw=1, label="B.3, the paper")
    ax.plot(x, line["paper_upper"], "--", color=IDEAL, lw=1)
    ax.scatter(x, line["value"], s=4, color=TEST, lw=0, label="images")
    ax.set(yscale="log", ylim=(max(line["lower"].min(), 1e-20) / 3, 30),
           xlabel="true margin m (logits)", ylabel="error probability $1 - p_y$")  # fmt: skip
    ax.legend(loc="lower left", frameon=False, markerscale=3)
    return ax


def radius_panel(
    axes: Sequence[Axes],
    clean: Tensor,
    attacked: RobustMargin,
    answers: Tensor,
    classes: Sequence[str],
    radius: float,
) -> None:
    """Margin histogram at one radius above images that flip there.

    Args:
        axes: the histogram's axes, then one for each image to show.
        clean: (N,) clean margins, in logits.
        attacked: from `robust_margin` for the same images.
        answers: (N,) what the network says to the attacked images.
        classes: names of the answers.
        radius: of the ball, in units of 1/255.

    The histogram's axes depend on the clean margins alone: only the attacked ones move with ε.
    """
    histogram, *pictures = axes
    reach = clean.abs().max().item()
    limits = (-1.5 * reach, 1.1 * reach)
    margin_histogram({"clean": clean, "attacked": attacked.margin}, histogram, limits)
    tallest = max(bar.get_height() for bar in histogram.patches if isinstance(bar, Rectangle))
    histogram.set_ylim(0, 1.4 * tallest)
    flipped = ((clean > 0) & (attacked.margin < 0)).nonzero()[:, 0]
    histogram.set_title(
        f"ε = {radius:g}/255: {len(flipped)} of {int((clean > 0).sum())} flip", fontsize=9.5
    )
    # The images with the largest clean margins first.
    first = flipped[clean[flipped].argsort(descending=True)][: len(pictures)].tolist()
    for ax in pictures:
        ax.set_axis_off()
    for ax, index in zip(pictures, first, strict=False):
        draw_image(attacked.adversarial_inputs[index], ax)
        ax.set_title(f"m {clean[index]:.1f} → {attacked.margin[index]:.1f}\n"
                     f"now “{classes[answers[index]]}”", fontsize=8)  # fmt: skip


def epsilon_grid(
    model: nn.Module,
    split: Split,
    classes: Sequence[str],
    radii: Sequence[float] = (0, 2, 4, 8, 16),
) -> Figure:
    """Static twin of the ε explorer: one column per radius, in units of 1/255.

    Args:
        model: maps inputs to logits, in eval mode.
        split: the images to attack.
        classes: names of the classes.
        radii: of the L-infinity balls, in units of 1/255.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            2, len(radii), figsize=(2.7 * len(radii), 4.4), height_ratios=(3, 2), squeeze=False
        )
    for column, radius in zip(axes.T, radii, strict=True):
        radius_panel(column, *attack_at(model, split, radius), classes, radius)
        if column[0] is not axes[0, 0]:
            column[0].get_legend().remove()
            column[0].set_ylabel("")
    return fig


def attack_at(model: nn.Module, split: Split, radius: float) -> tuple[Tensor, RobustMargin, Tensor]:
    """Clean margins, robust margins and the answers to the attacked images at one radius.

    Args:
        model: maps inputs to logits, in eval mode.
        split: the images to attack.
        radius: of the L-infinity ball, in units of 1/255.

    Returns:
        (N,) margins in logits; the attack's result; (N,) int64 answers.
    """
    attacked = robust_margin(model, split.inputs, split.target, radius / 255)
    with torch.no_grad():
        clean = true_margin(model(split.inputs), split.target)
        answers = model(attacked.adversarial_inputs).argmax(1)
    return clean, attacked, answers


@on_axes()
def two_divergences(clean_margin: float, margins: np.ndarray, ax: Axes | None = None) -> Axes:
    """Both KL divergences between a clean and an attacked prediction of two classes.

    Args:
        clean_margin: of the image, in logits.
        margins: (T,) margins that an attack may leave it, in logits.
        ax: where to draw.

    Returns:
        The axes: KL(clean, attacked) and KL(attacked, clean) in nats against the attacked margin.
    """
    clean, attacked = (1 / (1 + np.exp(-np.asarray(m))) for m in (clean_margin, margins))

    def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    ax.plot(margins, divergence(clean, attacked), color=MARGIN, lw=2,
            label="KL(p(x) ‖ p(x_adv)): the paper's")  # fmt: skip
    ax.plot(margins, divergence(attacked, clean), "--", color=IDEAL, lw=1.5,
            label="KL(p(x_adv) ‖ p(x))")  # fmt: skip
    ax.axvline(0, color=IDEAL, ls=":", lw=1)
    ax.set(xlabel="margin left at x_adv (logits)", ylabel="divergence (nats)", ylim=(0, None))
    ax.legend(frameon=False, fontsize=8)
    return ax
