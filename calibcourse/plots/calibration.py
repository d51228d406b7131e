"""Reliability diagrams, confidence, and the estimates of calibration error."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from .._checks import check_choice
from ..metrics import (
    NoiseFloor,
    ReliabilityCurve,
    ece_of_confidence,
    expected_calibration_error,
    negative_log_likelihood,
    noise_floor,
    reliability_curve,
    reliability_of_confidence,
    wilson_interval,
)
from .style import (
    BOUND,
    CURVATURE,
    IDEAL,
    MARGIN,
    MARKERS,
    RIGHT,
    STYLE,
    TEST,
    WRONG,
    array,
    figure,
    on_axes,
)

NOISE = "#8c8c8c"  # grey: what chance makes of a perfectly calibrated network
NOISE_LABEL = "calibrated network, by chance"
NOISE_BAND_ALT = (
    "A grey band shows where chance alone would put a perfectly calibrated network with the same "
    "confidences and as many images; what lies inside it is no evidence of miscalibration."
)


def noise_band(floor: NoiseFloor, ax: Axes, along: str = "x", label: str = NOISE_LABEL) -> Axes:
    """A grey band over a whole axis: the ECE of a perfectly calibrated network by chance.

    Args:
        floor: from `noise_floor`.
        ax: a figure of ECE.
        along: "x" where ECE stands on the vertical axis, "y" where it stands on the horizontal.
        label: for a legend.

    Returns:
        The axes. Describe the band by NOISE_BAND_ALT.

    Raises:
        ValueError: unknown `along`.
    """
    check_choice(along, "along", ("x", "y"))
    span = ax.axhspan if along == "x" else ax.axvspan
    span(floor.low, floor.high, color=NOISE, alpha=0.35, lw=0, zorder=0.5, label=label)
    return ax


@on_axes(width=4.2, height=4.2)
def reliability_diagram(
    curve: ReliabilityCurve,
    ax: Axes | None = None,
    color: str = TEST,
    counts: bool = True,
    legend: bool = True,
    floor: NoiseFloor | None = None,
) -> Axes:
    """Accuracy against confidence, bin by bin, with 95 % Wilson intervals and the gap to ideal.

    Args:
        curve: from `reliability_curve`.
        ax: where to draw.
        color: of the accuracy bars (TEST or TRAIN).
        counts: draw on the horizontal axis which share of the samples each bin holds.
        legend: say below the axis what the colours mean.
        floor: from `noise_floor` with the same bins: draw behind the bars where the accuracy of a
            calibrated network would lie; describe it by NOISE_BAND_ALT.

    Returns:
        The axes. Bins with fewer than ten samples are drawn pale: their accuracy says little.
    """
    edges = array(curve.edges)
    count = array(curve.count)
    filled = count > 0
    left, width, count = edges[:-1][filled], np.diff(edges)[filled], count[filled]
    accuracy = array(curve.accuracy)[filled]
    confidence = array(curve.confidence)[filled]

    bars = ax.bar(left, accuracy, width, align="edge", color=color, edgecolor="white")
    for bar, n in zip(bars, count, strict=True):
        bar.set_alpha(0.55 if n >= 10 else 0.12)
    low, high = wilson_interval(accuracy * count, count)
    errors = np.maximum([accuracy - low, high - accuracy], 0)
    ax.vlines(confidence, accuracy, confidence, color=BOUND, lw=4)
    ax.errorbar(confidence, accuracy, errors, fmt="o", ms=3.5, color="black", lw=1)
    ax.plot([0, 1], [0, 1], "--", color=IDEAL, lw=1)
    meanings = {"accuracy": color, "its 95 % interval": "black", "gap to confidence": BOUND}
    if floor is not None:
        low, high = array(floor.accuracy_low)[filled], array(floor.accuracy_high)[filled]
        ax.bar(left, high - low, width, low, align="edge", color=NOISE, alpha=0.6, zorder=2.5)
        meanings[NOISE_LABEL] = NOISE
    if counts:
        # A strip on the axis itself: heights are shares of all samples, the largest fixed.
        share = count / count.sum()
        ax.bar(left, 0.15 * share / share.max(), width, align="edge", color=IDEAL, alpha=0.7)
        meanings[f"images per bin (largest {share.max():.0%})"] = IDEAL
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    if legend:
        handles = [Patch(color=c, alpha=0.7, label=label) for label, c in meanings.items()]
        # Below the axis: inside, it would lie on a bar of some diagram.
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2,
                  fontsize=7.5, frameon=False)  # fmt: skip
    return ax


@on_axes(width=4.6, height=4.4)
def reliability_of_predictions(
    confidence: Tensor, correct: Tensor, n_bins: int = 5, ax: Axes | None = None
) -> Axes:
    """A person's reliability diagram: how often right against how sure, with the noise of chance.

    Args:
        confidence: (N,) float in [0, 1], how sure of each prediction.
        correct: (N,) bool.
        n_bins: equal-width bins; few, for a person gives few answers.
        ax: where to draw.

    Returns:
        The axes; above each bin stands the number of its predictions.
    """
    curve = reliability_of_confidence(confidence, correct, n_bins)
    floor = noise_floor(confidence, n_bins)
    reliability_diagram(curve, ax=ax, counts=False, legend=False, floor=floor)
    for left, count in zip(curve.edges[:-1].tolist(), curve.count.tolist(), strict=True):
        if count:
            ax.text(left + 0.5 / n_bins, 1.01, str(count), ha="center", va="bottom", fontsize=8)
    meanings = {
        "share that was right": TEST,
        "its 95 % interval": "black",
        "gap to how sure": BOUND,
        "calibrated person, by chance": NOISE,
    }
    handles = [Patch(color=c, alpha=0.7, label=label) for label, c in meanings.items()]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2,
              fontsize=7.5, frameon=False)  # fmt: skip
    ece = float(ece_of_confidence(confidence, correct, n_bins))
    ax.set(xlabel="how sure you were", ylabel="how often you were right")
    title = f"{len(correct)} predictions: ECE {ece:.2f}, by chance up to {floor.high:.2f}"
    ax.set_title(title, pad=18)
    return ax


def tempered_reliability(
    logits: Tensor,
    target: Tensor,
    temperature: float = 1.0,
    n_bins: int = 15,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Reliability diagram of logits divided by a temperature; the title states the scores.

    Args:
        logits: (N, K) float.
        target: (N,) int64.
        temperature: above 1 makes the network less sure, below 1 surer.
        n_bins: equal-width bins.
        ax: where to draw.
        legend: say below the axis what the colours mean.

    Returns:
        The axes.
    """
    tempered = logits / temperature
    ax = reliability_diagram(reliability_curve(tempered, target, n_bins), ax=ax, legend=legend)
    ece = expected_calibration_error(tempered, target, n_bins).item()
    nll = negative_log_likelihood(tempered, target).item()
    ax.set_title(f"T = {temperature:.2f}, {n_bins} bins\nECE {ece:.3f}, NLL {nll:.2f} nats")
    return ax


def temperature_grid(
    logits: Tensor,
    target: Tensor,
    temperatures: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
    n_bins: Sequence[int] = (5, 15),
) -> Figure:
    """Static twin of the temperature explorer: rows are numbers of bins, columns temperatures.

    Args:
        logits: (N, K) float.
        target: (N,) int64.
        temperatures: one column each.
        n_bins: one row each.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            len(n_bins),
            len(temperatures),
            figsize=(2.9 * len(temperatures), 3.1 * len(n_bins)),
            squeeze=False,
            sharex=True,
            sharey=True,
        )
    for row, bins in zip(axes, n_bins, strict=True):
        for ax, temperature in zip(row, temperatures, strict=True):
            tempered_reliability(logits, target, temperature, bins, ax, legend=ax is axes[-1, 0])
            ax.label_outer()
    return fig


@on_axes()
def confidence_histogram(
    confidence: Tensor, correct: Tensor, ax: Axes | None = None, n_bins: int = 20
) -> Axes:
    """How sure the network is where it is right and where it is wrong.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        ax: where to draw.
        n_bins: bars over [0, 1].

    Returns:
        The axes; the number of samples is on a logarithmic scale.
    """
    confidence, correct = array(confidence), array(correct).astype(bool)
    bins = np.linspace(0, 1, n_bins + 1)
    ax.hist(confidence[correct], bins, color=RIGHT, label="right")
    ax.hist(confidence[~correct], bins, color=WRONG, histtype="step", lw=2, label="wrong")
    ax.set_yscale("log")
    ax.set(xlabel="confidence", ylabel="images", xlim=(0, 1))
    ax.legend(loc="upper left", frameon=False)
    return ax


def three_instruments(
    curve: ReliabilityCurve, margins: Tensor, steps: Sequence[int], sharpness: Sequence[float]
) -> Figure:
    """Calibration, margins and curvature of one moment of training, side by side.

    Args:
        curve: reliability curve of held-out images at this moment.
        margins: (N,) true margins of the training images, in logits.
        steps: training steps up to this moment.
        sharpness: lambda_max of the Gauss-Newton matrix at each of them.

    Returns:
        The figure.
    """
    fig, (left, middle, right) = figure(3, width=3.5, height=3.3)
    reliability_diagram(curve, ax=left, counts=False, legend=False)
    left.set_title(f"Test images, step {steps[-1]:,}")
    # One scale for all moments, so that the histogram moves and not the axis.
    middle.hist(array(margins.clamp(-9.9, 14.9)), np.linspace(-10, 15, 51), color=MARGIN)
    middle.axvline(0, color=IDEAL, ls="--", lw=1)
    middle.set(xlim=(-10, 15), xlabel="margin of training images (logits)", ylabel="images")
    middle.set_title("Training images: wrong | right")
    right.plot(steps, sharpness, "o-", ms=3, color=CURVATURE)
    right.set(xlabel="training step", ylabel="sharpness $\\lambda_{\\max}$", ylim=(0, None))
    right.set_title("How curved the loss is")
    return fig


def snapshots(
    frames: Sequence[tuple[ReliabilityCurve, Tensor, float]], steps: Sequence[int]
) -> Figure:
    """Several moments of training as columns: reliability above, margins below.

    Args:
        frames: (reliability curve of test images, (N,) training margins, sharpness) per moment.
        steps: the training step of each.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            2,
            len(frames),
            figsize=(2.7 * len(frames), 4.6),
            squeeze=False,
            sharex="row",
            sharey="row",
        )
    for column, ((curve, margins, sharpness), step) in zip(
        axes.T, zip(frames, steps, strict=True), strict=True
    ):
        reliability_diagram(curve, ax=column[0], counts=False, legend=False)
        column[0].set_title(f"step {step:,}\nsharpness {sharpness:.1f}")
        column[1].hist(array(margins.clamp(-9.9, 14.9)), np.linspace(-10, 15, 51), color=MARGIN)
        column[1].axvline(0, color=IDEAL, ls="--", lw=1)
        column[1].set(xlabel="margin (logits)", ylabel="training images")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    return fig


@on_axes()
def estimates_by_size(
    sizes: Sequence[int],
    values: Mapping[int, Tensor],
    ax: Axes | None = None,
    floors: Sequence[NoiseFloor] = (),
) -> Axes:
    """How an estimate of ECE depends on the number of samples and of bins.

    Args:
        sizes: numbers of samples, one per row of the values.
        values: number of bins -> (len(sizes), n_repeats) estimates.
        ax: where to draw.
        floors: of samples of these sizes, one each, to draw as a grey band; none leaves it out.

    Returns:
        The axes, both logarithmic; lines are means, bars run from the lowest to the highest draw,
        side by side. Each number of bins has its own mark.
    """
    if floors:
        low, high = np.transpose([(floor.low, floor.high) for floor in floors])
        ax.fill_between(sizes, low, high, color=NOISE, alpha=0.35, lw=0, zorder=0.5)
    for place, (n_bins, estimates) in enumerate(sorted(values.items())):
        x, estimates = np.asarray(sizes) * 1.05**place, array(estimates)
        ax.plot(x, estimates.mean(1), MARKERS[place] + "-", color=TEST, lw=1, ms=5)
        ax.vlines(x, estimates.min(1), estimates.max(1), color=TEST, lw=1)
        ax.annotate(f"  {n_bins} bins", (x[-1], estimates[-1].mean()), va="center",
                    fontsize=9, annotation_clip=False)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="images", ylabel="ECE")
    return ax
