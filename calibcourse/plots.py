"""Figures of the course: each function takes results, draws on `ax` (None makes one), returns it.

One colour has one meaning in the whole course (Okabe and Ito's palette, safe for colour-blind
readers). Titles are left to the caller, who knows the finding; `show` puts a figure into the
notebook together with its alternative text.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor, nn

from .attacks import RobustMargin, robust_margin
from .bounds import (
    NATS_PER_DECADE,
    TailBounds,
    confidence_gap_bounds,
    logit_hessian_bounds,
    softmax_tail_bounds,
)
from .data import Split
from .history import History
from .margins import true_margin
from .metrics import (
    ReliabilityCurve,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_curve,
)

TRAIN = "#0072B2"  # blue: measured on the training images
TEST = "#D55E00"  # vermilion: measured on held-out images
CURVATURE = "#009E73"  # green: sharpness, eigenvalues
MARGIN = "#CC79A7"  # purple: margins and their moment Q
BOUND = "#E69F00"  # orange: bounds, gaps, what a statement allows
RIGHT = "#56B4E9"  # sky blue: images the network gets right
WRONG = "#000000"  # black: images it gets wrong
IDEAL = "#555555"  # grey: the reference, what perfection would be

STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",  # readable on JupyterLab's dark theme too
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
}


def figure(n_panels: int = 1, width: float = 4.2, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A row of panels in the style of the course.

    Args:
        n_panels: number of axes side by side.
        width, height: inches per panel.

    Returns:
        The figure and the list of its axes.

    Example:
        >>> fig, (left, right) = figure(2)
        >>> plt.close(fig)
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(1, n_panels, figsize=(width * n_panels, height), squeeze=False)
    return fig, list(axes[0])


def mosaic(layout: str, width: float, height: float, **options) -> Figure:
    """A figure whose panels are laid out by letters, as in `matplotlib.pyplot.subplot_mosaic`.

    Args:
        layout: rows separated by semicolons, one letter per cell.
        width, height: inches of the whole figure.
        **options: passed on, such as height_ratios.

    Returns:
        The figure; its axes stand in the order in which their letters appear.
    """
    with plt.rc_context(STYLE):
        return plt.subplot_mosaic(layout, figsize=(width, height), **options)[0]


def png_bytes(fig: Figure) -> bytes:
    """The figure as PNG bytes; the figure is closed, so that no notebook shows it twice."""
    buffer = io.BytesIO()
    with plt.rc_context(STYLE):
        fig.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


def show(fig: Figure | Axes, alt: str, display_id: str | None = None, update: bool = False) -> None:
    """Display a figure with alternative text, which is also the cell's plain-text output.

    Args:
        fig: a figure or one of its axes.
        alt: what a reader who cannot see the picture should know; the same in every run, so no
            trained numbers.
        display_id: a name under which a later call with update=True replaces the picture.
        update: replace the picture of that name instead of adding one.

    Raises:
        ValueError: alt is empty.
    """
    if not alt.strip():
        raise ValueError("alt must describe the figure, got an empty text")
    fig = fig if isinstance(fig, Figure) else fig.get_figure()
    width = int(fig.get_figwidth() * STYLE["figure.dpi"])
    data = {"image/png": base64.b64encode(png_bytes(fig)).decode(), "text/plain": alt}
    metadata = {"image/png": {"alt": alt, "width": width}}
    display(data, metadata=metadata, raw=True, display_id=display_id, update=update)


def image_grid(
    images: Tensor, titles: Sequence[str], columns: int = 5, axes_size: float = 1.5
) -> Figure:
    """Small images with a caption above each.

    Args:
        images: (n, C, H, W) in [0, 1], C = 1 or 3.
        titles: n captions; a newline starts a second line.
        columns: images per row.
        axes_size: inches per image.

    Returns:
        The figure.

    Raises:
        ValueError: images and titles differ in number.
    """
    if len(images) != len(titles):
        raise ValueError(f"titles must have one entry per image ({len(images)}), got {len(titles)}")
    rows = -(-len(images) // columns)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            rows,
            columns,
            figsize=(axes_size * columns, (axes_size + 0.45) * rows),
            squeeze=False,
        )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, images.cpu(), titles, strict=False):
        ax.imshow(image.permute(1, 2, 0).squeeze(-1), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(title, fontsize=8, loc="center")
    return fig


def wilson_interval(successes: np.ndarray, trials: np.ndarray, z: float = 1.96) -> np.ndarray:
    """Wilson's score interval of a binomial share (Wilson 1927): sensible at 0 %, 100 % and n = 1.

    Args:
        successes, trials: arrays of the same shape, trials >= 1.
        z: normal quantile; 1.96 gives 95 %.

    Returns:
        Array (2, ...): lower and upper end.

    Example:
        >>> wilson_interval(np.array([10.0]), np.array([10.0])).round(3)
        array([[0.722],
               [1.   ]])
    """
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return np.clip(np.stack([centre - half, centre + half]), 0.0, 1.0)


def reliability_diagram(
    curve: ReliabilityCurve,
    ax: Axes | None = None,
    color: str = TEST,
    counts: bool = True,
    legend: bool = True,
) -> Axes:
    """Accuracy against confidence, bin by bin, with 95 % Wilson intervals and the gap to ideal.

    Args:
        curve: from `reliability_curve`.
        ax: where to draw.
        color: of the accuracy bars (TEST or TRAIN).
        counts: draw on the horizontal axis which share of the samples each bin holds.
        legend: say in the corner what the colours mean.

    Returns:
        The axes. Bins with fewer than ten samples are drawn pale: their accuracy says little.
    """
    ax = figure(1, 4.2, 4.2)[1][0] if ax is None else ax
    edges = curve.edges.cpu().numpy()
    count = curve.count.cpu().numpy()
    filled = count > 0
    left, width, count = edges[:-1][filled], np.diff(edges)[filled], count[filled]
    accuracy = curve.accuracy.cpu().numpy()[filled]
    confidence = curve.confidence.cpu().numpy()[filled]

    bars = ax.bar(left, accuracy, width, align="edge", color=color, edgecolor="white")
    for bar, n in zip(bars, count, strict=True):
        bar.set_alpha(0.55 if n >= 10 else 0.12)
    low, high = wilson_interval(accuracy * count, count)
    errors = np.maximum([accuracy - low, high - accuracy], 0)
    ax.vlines(confidence, accuracy, confidence, color=BOUND, lw=2.5, alpha=0.8)
    ax.errorbar(confidence, accuracy, errors, fmt="o", ms=3.5, color=color, lw=1)
    ax.plot([0, 1], [0, 1], "--", color=IDEAL, lw=1)
    meanings = {"accuracy": color, "gap to confidence": BOUND}
    if counts:
        # A strip on the axis itself: heights are shares of all samples, the largest fixed.
        share = count / count.sum()
        ax.bar(left, 0.15 * share / share.max(), width, align="edge", color=IDEAL, alpha=0.7)
        meanings[f"images per bin (largest {share.max():.0%})"] = IDEAL
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    if legend:
        handles = [Patch(color=c, alpha=0.7, label=label) for label, c in meanings.items()]
        ax.legend(handles=handles, loc="upper left", fontsize=7.5, frameon=False)
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
        legend: say in the corner what the colours mean.

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
            tempered_reliability(logits, target, temperature, bins, ax, legend=ax is axes[0, 0])
            ax.label_outer()
    return fig


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
    ax = figure(1)[1][0] if ax is None else ax
    confidence, correct = confidence.cpu().numpy(), correct.cpu().numpy().astype(bool)
    bins = np.linspace(0, 1, n_bins + 1)
    ax.hist(confidence[correct], bins, color=RIGHT, label="right")
    ax.hist(confidence[~correct], bins, color=WRONG, histtype="step", lw=2, label="wrong")
    ax.set_yscale("log")
    ax.set(xlabel="confidence", ylabel="images", xlim=(0, 1))
    ax.legend(loc="upper left", frameon=False)
    return ax


def trajectory(
    steps: np.ndarray,
    values: Mapping[str, np.ndarray],
    colors: Mapping[str, str],
    ax: Axes | None = None,
    ylabel: str = "",
    log: bool = False,
) -> Axes:
    """Curves over training steps, each labelled at its end.

    Args:
        steps: (T,) step numbers.
        values: label -> (T,) values.
        colors: label -> colour, one of this module's constants.
        ax: where to draw.
        ylabel: quantity and unit.
        log: logarithmic vertical axis.

    Returns:
        The axes.
    """
    ax = figure(1)[1][0] if ax is None else ax
    for label, series in values.items():
        ax.plot(steps, series, color=colors[label], lw=1.8)
        ax.annotate(f" {label}", (steps[-1], series[-1]), color=colors[label], va="center",
                    fontsize=9, annotation_clip=False)  # fmt: skip
    if log:
        ax.set_yscale("log")
    ax.set(xlabel="training step", ylabel=ylabel)
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
    middle.hist(margins.clamp(-9.9, 14.9).cpu(), np.linspace(-10, 15, 51), color=MARGIN)
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
            2, len(frames), figsize=(2.7 * len(frames), 4.6), sharex="row", sharey="row"
        )
    for column, ((curve, margins, sharpness), step) in zip(
        axes.T, zip(frames, steps, strict=True), strict=True
    ):
        reliability_diagram(curve, ax=column[0], counts=False, legend=False)
        column[0].set_title(f"step {step:,}\nsharpness {sharpness:.1f}")
        column[1].hist(margins.clamp(-9.9, 14.9).cpu(), np.linspace(-10, 15, 51), color=MARGIN)
        column[1].axvline(0, color=IDEAL, ls="--", lw=1)
        column[1].set(xlabel="margin (logits)", ylabel="training images")
    for ax in axes.flat:
        ax.label_outer()
    for ax in axes[0]:
        ax.set_xlabel("confidence")
    return fig


def margin_histogram(margins: Mapping[str, Tensor], ax: Axes | None = None) -> Axes:
    """Histograms of margins over each other, the first filled, the others as outlines.

    Args:
        margins: label -> (N,) margins, in logits.
        ax: where to draw.

    Returns:
        The axes; heights are shares of the images, so that sets of unlike size compare.
    """
    ax = figure(1)[1][0] if ax is None else ax
    values = {label: margin.cpu().numpy() for label, margin in margins.items()}
    together = np.concatenate(list(values.values()))
    bins = np.linspace(together.min(), together.max(), 41)
    fills = ({"alpha": 0.55}, {"histtype": "step", "lw": 2, "color": WRONG})
    for index, (label, margin) in enumerate(values.items()):
        weights = np.full(len(margin), 1 / len(margin))
        style = {"color": MARGIN} | fills[min(index, 1)]
        ax.hist(margin, bins, weights=weights, label=label, **style)
    ax.axvline(0, color=IDEAL, ls="--", lw=1)
    ax.set(xlabel="true margin m (logits)", ylabel="share of the images")
    ax.legend(loc="upper left", frameon=False)
    return ax


def margin_scatter(clean: Tensor, robust: Tensor, ax: Axes | None = None) -> Axes:
    """Robust against clean margin, one point per image.

    Args:
        clean: (N,) margins, in logits.
        robust: (N,) robust margins, in logits.
        ax: where to draw.

    Returns:
        The axes; images that are right but not robustly so are drawn black.
    """
    ax = figure(1)[1][0] if ax is None else ax
    clean, robust = clean.cpu().numpy(), robust.cpu().numpy()
    turned = (clean > 0) & (robust < 0)
    ax.scatter(clean[~turned], robust[~turned], s=6, color=MARGIN, alpha=0.6, lw=0)
    ax.scatter(clean[turned], robust[turned], s=6, color=WRONG, alpha=0.6, lw=0)
    low, high = min(robust.min(), clean.min()), clean.max()
    ax.plot([low, high], [low, high], color=IDEAL, lw=1)
    ax.axhline(0, color=IDEAL, ls="--", lw=1)
    ax.set(xlabel="clean margin (logits)", ylabel="robust margin (logits)")
    return ax


def tail_band(margin: Tensor, bounds: TailBounds, ax: Axes | None = None) -> Axes:
    """Misconfidence 1 - p_y of real images inside the band their margins allow.

    Args:
        margin: (N,) true margins, in logits.
        bounds: from `softmax_tail_bounds` for the same images.
        ax: where to draw.

    Returns:
        The axes: a filled band for B.3+ and dashed lines for the paper's B.3.
    """
    ax = figure(1)[1][0] if ax is None else ax
    order = margin.argsort()
    x = margin[order].cpu().numpy()
    line = {name: getattr(bounds, name)[order].cpu().numpy()
            for name in ("lower", "value", "upper", "paper_lower", "paper_upper")}  # fmt: skip
    ax.fill_between(x, line["lower"], line["upper"], color=BOUND, alpha=0.35, lw=0,
                    label="B.3⁺, this course")  # fmt: skip
    ax.plot(x, line["paper_lower"], "--", color=IDEAL, lw=1, label="B.3, the paper")
    ax.plot(x, line["paper_upper"], "--", color=IDEAL, lw=1)
    ax.scatter(x, line["value"], s=4, color=TEST, lw=0, label="images")
    ax.set(yscale="log", ylim=(max(line["lower"].min(), 1e-20) / 3, 30),
           xlabel="true margin m (logits)", ylabel="misconfidence $1 - p_y$")  # fmt: skip
    ax.legend(loc="lower left", frameon=False)
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
    """
    histogram, *pictures = axes
    margin_histogram({"clean": clean, "attacked": attacked.margin}, ax=histogram)
    flipped = ((clean > 0) & (attacked.margin < 0)).nonzero()[:, 0]
    histogram.set_title(
        f"ε = {radius:g}/255: {len(flipped)} of {int((clean > 0).sum())} flip", fontsize=9.5
    )
    # The most decided images first: those whose fall is hardest to believe.
    first = flipped[clean[flipped].argsort(descending=True)][: len(pictures)].tolist()
    for ax in pictures:
        ax.set_axis_off()
    for ax, index in zip(pictures, first, strict=False):
        image = attacked.adversarial_inputs[index].cpu()
        ax.imshow(image.permute(1, 2, 0).squeeze(-1), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(f"m {clean[index]:.0f} → {attacked.margin[index]:.0f}\n"
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


def spectrum(spectra: Mapping[str, Tensor], ax: Axes | None = None) -> Axes:
    """Eigenvalues from the largest to the smallest, on an axis that shows both signs.

    Args:
        spectra: label -> (d,) eigenvalues in ascending order; the first label gets the colour of
            curvature, the others are drawn black.
        ax: where to draw.

    Returns:
        The axes.
    """
    ax = figure(1)[1][0] if ax is None else ax
    for index, (label, values) in enumerate(spectra.items()):
        values = values.flip(0).cpu().numpy()
        style = {"color": WRONG, "lw": 1.2, "ls": "--"} if index else {"color": CURVATURE, "lw": 3}
        ax.plot(np.arange(1, len(values) + 1), values, label=label, **style)
    ax.axhline(0, color=IDEAL, lw=0.8)
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.set(xlabel="rank", ylabel="eigenvalue")
    ax.legend(frameon=False)
    return ax


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
    ax = figure(1)[1][0] if ax is None else ax
    for (label, values), color in zip(errors.items(), (WRONG, CURVATURE), strict=True):
        ax.plot(margins, values, "o-", ms=4, color=color, label=label)
    ax.axhline(2**-24, color=IDEAL, ls="--", lw=1, label="rounding of one number")
    ax.set(yscale="log", xlabel="margin (logits)", ylabel="relative error in float32")
    ax.legend(frameon=False)
    return ax


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
    ax = figure(1)[1][0] if ax is None else ax
    for series in np.atleast_2d(sharpness):
        ax.plot(steps, series, color=CURVATURE, lw=1.6, alpha=0.8)
    ax.axhline(2 / learning_rate, color=BOUND, ls="--", lw=1.5)
    ax.annotate(f"2/η = {2 / learning_rate:g}", (steps[-1], 2 / learning_rate), ha="right",
                va="bottom", color="#8A5A00", fontsize=9)  # fmt: skip
    ax.set(xlabel="training step", ylabel="sharpness $\\lambda_{\\max}$", ylim=(0, None))
    return ax


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
    ax = figure(1)[1][0] if ax is None else ax
    ax.scatter(margin.cpu(), values.cpu(), s=6, lw=0, alpha=0.6, color=CURVATURE)
    ax.set(yscale="log", xlabel="true margin m (logits)", ylabel=name)
    return ax


def recorded_sharpness(sweep: Any, learning_rate: float, ax: Axes | None = None) -> Axes:
    """All seeds of a recorded sweep at one learning rate, against the edge 2/η.

    Args:
        sweep: a `calibcourse.reproduce.Sweep` of gradient descent, which stands on a higher floor.
        learning_rate: one that the sweep holds.
        ax: where to draw.

    Returns:
        The axes.
    """
    runs = sweep.select(lr=learning_rate).runs
    steps = runs[0].history.column("step")
    series = [run.history.column("sharpness") for run in runs]
    ax = edge_of_stability(steps, series, learning_rate, ax)
    ax.set_title(f"η = {learning_rate:g}, {len(runs)} seeds")
    return ax


def learning_rate_grid(sweep: Any) -> Figure:
    """Static twin of the learning-rate explorer: one panel per recorded learning rate.

    Args:
        sweep: a `calibcourse.reproduce.Sweep` of gradient descent, which stands on a higher floor.

    Returns:
        The figure.
    """
    rates = sorted({run.config.lr for run in sweep.runs})
    fig, axes = figure(len(rates), width=3.0)
    for ax, rate in zip(axes, rates, strict=True):
        recorded_sharpness(sweep, rate, ax=ax)
    return fig


class LiveFigure:
    """One picture in a notebook that is redrawn while something runs.

    Args:
        draw: called as draw(*args) and returns a figure.
        alt: alternative text.
        name: display id, unique in the notebook.
    """

    def __init__(self, draw: Callable[..., Figure], alt: str, name: str):
        self.draw, self.alt, self.name = draw, alt, name
        self._shown = False

    def update(self, *args) -> None:
        """Draw again and replace the picture."""
        show(self.draw(*args), self.alt, display_id=self.name, update=self._shown)
        self._shown = True


def estimates_by_size(
    sizes: Sequence[int], values: Mapping[int, Tensor], ax: Axes | None = None
) -> Axes:
    """How an estimate of ECE depends on the number of samples and of bins.

    Args:
        sizes: numbers of samples, one per row of the values.
        values: number of bins -> (len(sizes), n_repeats) estimates.
        ax: where to draw.

    Returns:
        The axes, both logarithmic; lines are means, bands run from the lowest to the highest draw.
    """
    ax = figure(1)[1][0] if ax is None else ax
    for shade, (n_bins, estimates) in zip((0.35, 0.65, 1.0), sorted(values.items()), strict=False):
        ax.plot(sizes, estimates.mean(1), "o-", color=TEST, alpha=shade)
        ax.fill_between(
            sizes, estimates.amin(1), estimates.amax(1), color=TEST, alpha=0.15 * shade, lw=0
        )
        ax.annotate(f" {n_bins} bins", (sizes[-1], estimates[-1].mean()), va="center",
                    fontsize=9, annotation_clip=False)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="images", ylabel="ECE")
    return ax


# The rungs of `curvature_ladder`, from the weakest lower bound to the paper's upper one.
RUNGS = ("l4", "l3", "l2", "l1", "u0", "u1", "u2", "u3", "u4", "u5", "u6")


def ladder(history: History, split: str = "train", ax: Axes | None = None) -> Axes:
    """Every rung of the curvature ladder along a run, from the weakest lower to the weakest upper.

    Args:
        history: with the columns of `LadderProbe` for the split.
        split: "train", "validation" or "test".
        ax: where to draw.

    Returns:
        The axes: the curvature itself drawn thick, the bounds as edges of ever paler bands, the
        paper's dashed; each labelled at its end.
    """
    ax = figure(1, 7.2, 4.6)[1][0] if ax is None else ax
    steps = history.column("step")
    decades = {
        rung: history.column(f"{split}_log_{rung}") / NATS_PER_DECADE
        for rung in RUNGS
        if f"{split}_log_{rung}" in history.columns
    }
    for inner, outer in pairwise(decades):
        # The farther from the curvature, the paler.
        depth = abs(RUNGS.index(inner) + RUNGS.index(outer) - 2 * RUNGS.index("u0")) / 2
        ax.fill_between(steps, decades[inner], decades[outer], color=BOUND, lw=0,
                        alpha=max(0.08, 0.5 - 0.08 * depth))  # fmt: skip
    for rung, values in decades.items():
        if rung == "u0":
            ax.plot(steps, values, color=CURVATURE, lw=3)
        elif rung == "u6":
            ax.plot(steps, values, "--", color=IDEAL, lw=1.5)
        else:
            ax.plot(steps, values, color=BOUND, lw=0.8)
    names = {"u0": "$\\lambda_{\\max}$", "u6": "u6, the paper's"}
    low, high = ax.get_ylim()
    heights = _spread([values[-1] for values in decades.values()], 0.04 * (high - low))
    for rung, height in zip(decades, heights, strict=True):
        color = {"u0": CURVATURE, "u6": IDEAL}.get(rung, "#8A5A00")
        ax.annotate(f" {names.get(rung, rung)}", (steps[-1], height), color=color, va="center",
                    fontsize=9, annotation_clip=False)  # fmt: skip
    ax.set(xlabel="training step", ylabel="$\\log_{10}$ of the bound")
    return ax


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Positions of labels for ascending heights, at least `gap` apart, moved least in squares."""
    pools: list[tuple[float, int]] = []  # labels that would collide share their mean displacement
    for place, height in enumerate(heights):
        pool = (height - place * gap, 1)
        while pools and pools[-1][0] > pool[0]:
            (before, m), (after, n) = pools.pop(), pool
            pool = ((m * before + n * after) / (m + n), m + n)
        pools.append(pool)
    levels = [level for level, count in pools for _ in range(count)]
    return [level + place * gap for place, level in enumerate(levels)]


def sandwich(
    history: History, split: str = "train", n_classes: int = 10, ax: Axes | None = None
) -> Axes:
    """ECE between |u - err| and u + err, and the same bounds by curvature (THEORY.md 4.3).

    Args:
        history: with the columns of `calibration_quantities`, `bound_quantities` and `LadderProbe`
            for the split, measured on the same images.
        split: "train", "validation" or "test".
        n_classes: K.
        ax: where to draw.

    Returns:
        The axes. The lower bound by curvature is drawn where it is positive.
    """
    ax = figure(1)[1][0] if ax is None else ax

    def column(name: str) -> np.ndarray:
        return history.column(f"{split}_{name}")

    steps, curvature = history.column("step"), np.exp(column("log_u0"))
    error, misconfidence = 1 - column("accuracy"), 1 - column("confidence")
    lower = curvature * misconfidence / np.exp(column("log_u4")) - error  # u4 = 2 C_J² u
    ax.fill_between(steps, np.abs(misconfidence - error), misconfidence + error, color=BOUND,
                    alpha=0.35, lw=0, label="|u − err| to u + err")  # fmt: skip
    ax.plot(steps, (n_classes - 1) * curvature + error, "--", color=CURVATURE, lw=1.5,
            label="by curvature")  # fmt: skip
    ax.plot(steps, np.where(lower > 0, lower, np.nan), "--", color=CURVATURE, lw=1.5)
    color = TRAIN if split == "train" else TEST
    ax.plot(steps, column("ece"), color=color, lw=2, label="ECE")
    ax.plot(steps, np.where(error > 0, error, np.nan), ":", color=WRONG, lw=1.2, label="error rate")
    ax.set(yscale="log", xlabel="training step", ylabel=f"{split} ECE and its bounds")
    return ax


def slack_bars(totals: Mapping[str, Mapping[str, float]], ax: Axes | None = None) -> Axes:
    """What every rung of the ladder gives away, as one stacked bar per case.

    Args:
        totals: case (such as a phase) -> rung -> log10 of the factor between the rung and λ_max.
        ax: where to draw.

    Returns:
        The axes: lower bounds to the left of zero, upper bounds to the right; the length of a piece
        is what the inequality between two neighbouring rungs loses.
    """
    ax = figure(1, 8.0, 0.8 + 0.4 * len(totals))[1][0] if ax is None else ax
    widest = max(total["l4"] + total["u6"] for total in totals.values())
    for row, total in enumerate(totals.values()):
        for side, rungs in ((-1, ("l1", "l2", "l3", "l4")), (1, RUNGS[5:])):
            start = 0.0
            for place, rung in enumerate(rungs):
                loss = total[rung] - start
                shade = (0.85, 0.4)[place % 2]
                ax.barh(row, side * loss, left=side * start, color=BOUND, alpha=shade, lw=0)
                if loss > 0.03 * widest:
                    ax.text(side * (start + loss / 2), row, rung, ha="center", va="center",
                            fontsize=8)  # fmt: skip
                start = total[rung]
    ax.axvline(0, color=CURVATURE, lw=3)
    ax.set_yticks(range(len(totals)), list(totals))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="$\\log_{10}$ of the factor lost: below $\\lambda_{\\max}$ | above")
    return ax


def logit_bounds(logits: Tensor, target: int, axes: Sequence[Axes]) -> None:
    """One image: its probabilities, and every per-sample lemma as a value between its bounds.

    Args:
        logits: (K,) float.
        target: the label.
        axes: two: for the probabilities, and for the lemmas.
    """
    bars, chart = axes
    row, label = logits[None], torch.tensor([target])
    colors = [TEST if k == target else IDEAL for k in range(len(logits))]
    bars.bar(range(len(logits)), logits.double().softmax(0), color=colors, alpha=0.8)
    right = "right" if int(logits.argmax()) == target else "wrong"
    bars.set_title(f"margin {true_margin(row, label).item():+.1f}: {right}")
    bars.set(ylim=(0, 1), xlabel="class (label in colour)", ylabel="probability")
    bars.set_xticks(range(0, len(logits), max(1, len(logits) // 5)))

    gap, tail = confidence_gap_bounds(row, label), softmax_tail_bounds(row, label)
    bend = logit_hessian_bounds(row)
    lines = {  # value; this course's bounds; the paper's
        "B.2  |1{ŷ=y} − c|": (gap.value, (), (gap.upper,)),
        "B.3  $1 - p_y$": (
            tail.value, (tail.lower, tail.upper), (tail.paper_lower, tail.paper_upper)
        ),
        "B.4  $\\lambda_{\\max}(H)$": (
            bend.value,
            (torch.maximum(bend.lower, bend.trace_lower),
             torch.minimum(bend.upper, bend.trace_upper)),
            (bend.paper_upper,),
        ),
    }  # fmt: skip
    for height, (value, ours, papers) in enumerate(lines.values()):
        if ours:
            low, high = map(float, ours)
            chart.barh(height, high - low, left=low, height=0.5, color=BOUND, alpha=0.45)
        for bound in papers:
            chart.plot([float(bound)] * 2, [height - 0.35, height + 0.35], "--", color=IDEAL)
        chart.plot(float(value), height, "o", color=TEST, ms=5)
    chart.set_yticks(range(len(lines)), list(lines))
    chart.set(xscale="log", xlim=(1e-5, 1e5), ylim=(2.6, -0.6), xlabel="value and its bounds")
    chart.grid(axis="y", visible=False)
    chart.set_title("bar: this course, dashes: the paper")


def logit_bounds_grid(cases: Mapping[str, Tensor], target: int = 0) -> Figure:
    """Static twin of the logits explorer: one column per case.

    Args:
        cases: what to call it -> (K,) logits.
        target: the label, the same for all.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(2, len(cases), figsize=(3.1 * len(cases), 5.2), squeeze=False)
    for column, (name, logits) in zip(axes.T, cases.items(), strict=True):
        logit_bounds(logits, target, column)
        column[0].set_title(f"{name}\n{column[0].get_title()}")
        if column[0] is not axes[0, 0]:
            column[0].set_ylabel("")
            column[1].set_yticklabels([])
        column[1].set_title("")
    return fig


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
        The axes; the columns of a group stand from left to right in the order given.
    """
    ax = figure(1)[1][0] if ax is None else ax
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
    ax.set_xticks(range(len(groups)), groups)
    ax.grid(axis="x", visible=False)
    ax.set(ylim=(-1.08, 1.08), ylabel="correlation with sharpness")
    ax.legend(fontsize=8, framealpha=0.8)
    return ax


def doubt_and_error(history: History, split: str, ax: Axes | None = None) -> Axes:
    """Mean misconfidence u and error rate along a run, with the ECE that lies between them.

    Args:
        history: with columns SPLIT_confidence, SPLIT_accuracy and SPLIT_ece.
        split: "train", "validation" or "test".
        ax: where to draw.

    Returns:
        The axes: the shaded height is |u - err|.
    """
    ax = figure(1)[1][0] if ax is None else ax
    steps, color = history.column("step"), TRAIN if split == "train" else TEST
    doubt, error = (1 - history.column(f"{split}_{name}") for name in ("confidence", "accuracy"))
    ax.fill_between(steps, doubt, error, color=BOUND, alpha=0.35, lw=0, label="|u − err|")
    ax.plot(steps, doubt, "--", color=color, lw=1.5, label="misconfidence u")
    ax.plot(steps, error, color=WRONG, lw=1.5, label="error rate err")
    ax.plot(steps, history.column(f"{split}_ece"), color=color, lw=2.2, label=f"{split} ECE")
    ax.set(ylim=(0, 1), ylabel="share, or probability")
    ax.legend(frameon=False, fontsize=8)
    return _from_step_zero(ax)


def phase_chart(history: History, phases: Any, axes: Sequence[Axes]) -> None:
    """Sharpness with its plateau, and how sure the network is, with the moment it turns.

    Args:
        history: with sharpness, and confidence and accuracy on training and test images.
        phases: a `calibcourse.reproduce.Phases`, which stands on a higher floor.
        axes: two.
    """
    left, right = axes
    steps = history.column("step")
    left.axvspan(phases.steep_from, phases.steep_until, color=BOUND, alpha=0.2, lw=0)
    left.plot(steps, history.column("sharpness"), "o-", ms=2.5, lw=1.5, color=CURVATURE)
    left.set(ylabel="sharpness $\\lambda_{\\max}$", ylim=(0, None))
    for split, color in (("train", TRAIN), ("test", TEST)):
        gap = history.column(f"{split}_confidence") - history.column(f"{split}_accuracy")
        right.plot(steps, gap, "o-", ms=2.5, lw=1.5, color=color)
        right.annotate(f" {split}", (steps[-1], gap[-1]), color=color, va="center", fontsize=9,
                       annotation_clip=False)  # fmt: skip
    right.axhline(0, color=IDEAL, lw=0.8)
    if phases.sure_from is not None:
        right.axvline(phases.sure_from, color=BOUND, ls="--", lw=1.5)
    right.set_ylabel("confidence − accuracy")
    for ax in axes:
        _from_step_zero(ax)


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
    above.annotate("sharpness", (steps[sharpness.argmax()], 1.02), color=CURVATURE, ha="center",
                   va="bottom", fontsize=8)  # fmt: skip
    above.set(ylabel="share of its largest", ylim=(0, 1.15))
    # The same axes for every choice of probes, so that only the points change.
    below.set(xlim=(0, 1.05 * sharpness.max()), ylim=(0, 1.25 * largest))
    below.set(xlabel="sharpness $\\lambda_{\\max}$", ylabel="calibration error")
    below.legend(frameon=False, fontsize=8, loc="upper right")
    _from_step_zero(above)


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
        fig, axes = plt.subplots(2, len(windows), figsize=(2.9 * len(windows), 5.0), sharey="row")
    for column, (title, (used, values)) in zip(axes.T, windows.items(), strict=True):
        window_panel(column, history, used, values)
        column[0].set_title(title)
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    return fig


def pairing_matrix(matrix: np.ndarray, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Correlations of one quantity of every run with another quantity of every run.

    Args:
        matrix: (n, n) in [-1, 1]; the diagonal holds each run with itself.
        labels: n names of groups, equal ones next to each other.
        ax: where to draw.

    Returns:
        The axes: blue is -1, white 0, red 1; black lines part the groups.
    """
    ax = figure(1, 4.6, 4.2)[1][0] if ax is None else ax
    image = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
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


MARKERS = "osD^vPX*"  # one per optimizer where all share a panel


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
    ax = figure(1)[1][0] if ax is None else ax
    for name, groups in errors.items():
        color = TRAIN if name.startswith("train") else TEST
        for marker, (optimizer, values) in zip(MARKERS, groups.items(), strict=False):
            ax.plot(sharpness[optimizer], values, marker, ms=5, color=color, mew=0, alpha=0.75)
    handles = [
        ax.plot([], [], marker, ms=5, color=IDEAL, label=optimizer)[0]
        for marker, optimizer in zip(MARKERS, sharpness, strict=False)
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


def _from_step_zero(ax: Axes) -> Axes:
    """Training steps on a logarithmic axis that still has room for step 0."""
    ax.set_xscale("symlog", linthresh=1)
    ax.set(xlabel="training step", xlim=(0, None))
    return ax


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
    ax = figure(1, 4.6, 3.6)[1][0] if ax is None else ax
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
        ax.annotate(name, head, xytext=(0, lift), textcoords="offset points", color=color, ha=side,
                    fontsize=9)  # fmt: skip
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
    ax = figure(1)[1][0] if ax is None else ax
    ax.plot(eigenvalues, predicted, "-", color=BOUND, lw=1.8, label="$1 + \\rho\\lambda/\\|g\\|$")
    ax.plot(eigenvalues, factors, "o", color=CURVATURE, label="measured")
    ax.axhline(1, color=IDEAL, ls="--", lw=1)
    ax.set(xlabel="eigenvalue λ of the curvature", ylabel="component, SAM / gradient")
    ax.legend(frameon=False, loc="upper left")
    return ax


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
    ax = figure(1)[1][0] if ax is None else ax
    rank = np.arange(1, len(before) + 1)
    ax.bar(rank, before.abs().cpu(), 0.8, color=IDEAL, alpha=0.45, label=names[0])
    ax.plot(rank, after.abs().cpu(), "o", color=CURVATURE, ms=7, label=names[1])
    ax.set(xlabel="eigenvector, the steepest first", ylabel="|component|", xticks=rank)
    ax.legend(frameon=False)
    return ax


def shares(values: Mapping[str, float], xlabel: str, ax: Axes | None = None) -> Axes:
    """One horizontal bar per name, with its share written beside it.

    Args:
        values: name -> share in [0, 1], drawn from top to bottom.
        xlabel: of what.
        ax: where to draw.

    Returns:
        The axes.
    """
    ax = figure(1)[1][0] if ax is None else ax
    ax.barh(list(values), list(values.values()), color=CURVATURE, alpha=0.8)
    for height, value in enumerate(values.values()):
        ax.annotate(f" {value:.0%}", (value, height), va="center", fontsize=9)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.12), xlabel=xlabel)
    ax.grid(axis="y", visible=False)
    return ax


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
    ax = figure(1)[1][0] if ax is None else ax
    for place, grid in enumerate(values.values()):
        shades = np.linspace(1, 0.3, len(grid))[::-1]  # a single one is dark
        for shade, offset, row in zip(shades, np.linspace(-0.24, 0.24, len(grid)), grid,
                                      strict=True):  # fmt: skip
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
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="x", visible=False)
    return ax


# What a plane of matched loss can show: axis label, colour and range of the axis.
MATCHED = {
    "train_ece": ("train ECE", TRAIN, (3e-4, 0.7)),
    "test_ece": ("test ECE", TEST, (3e-3, 0.7)),
    "sharpness": ("sharpness $\\lambda_{\\max}$", CURVATURE, (0.05, 100)),
}


def matched_loss_plane(
    sweep: Any,
    label: str,
    learning_rate: float | None = None,
    column: str = "train_ece",
    ax: Axes | None = None,
) -> Axes:
    """A quantity against the training loss, one optimizer before SGD in grey: time runs right.

    Args:
        sweep: a `calibcourse.reproduce.Sweep` with runs of SGD, which stands on a higher floor.
        label: of the optimizer in colour.
        learning_rate: its learning rate; None draws all, the darker, the larger.
        column: one of `MATCHED`.
        ax: where to draw.

    Returns:
        The axes, both logarithmic. For the training ECE a dashed line shows ECE = loss, its bound.
    """
    ax = figure(1, 5.4, 3.8)[1][0] if ax is None else ax
    ylabel, color, limits = MATCHED[column]
    runs = [run for run in sweep.select(label=label).runs
            if learning_rate in (None, run.config.lr)]  # fmt: skip
    rates = sorted({run.config.lr for run in runs})
    shade = dict(zip(rates, np.linspace(1, 0.35, len(rates))[::-1], strict=True))
    lines = [(run, {"color": "#BBBBBB", "lw": 1.0}) for run in sweep.select(label="SGD").runs]
    lines += [(run, {"color": color, "lw": 1.3, "alpha": shade[run.config.lr]}) for run in runs]
    for run, style in lines:
        loss, value = run.history.column("train_loss")[1:], run.history.column(column)[1:]
        ax.plot(loss, value, **style)
    low, high = 3e-4, 2.6
    if column == "train_ece":
        ax.plot([low, high], [low, high], "--", color=BOUND, lw=1.8)
        ax.annotate("ECE = loss ", (1e-3, 1e-3), color="#8A5A00", fontsize=8, ha="right",
                    va="top")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlim=(high, low), ylim=limits, ylabel=ylabel,
           xlabel="training loss (nats)")  # fmt: skip
    ax.set_title(f"{label}, SGD in grey")
    return ax


def matched_loss_grid(sweep: Any, labels: Sequence[str], columns: Sequence[str]) -> Figure:
    """Static twin of the matched-loss explorer: one panel per quantity and optimizer.

    Args:
        sweep: a `calibcourse.reproduce.Sweep` with runs of SGD, which stands on a higher floor.
        labels: of the optimizers, one column of panels each.
        columns: of `MATCHED`, one row of panels each.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            len(columns), len(labels), figsize=(2.9 * len(labels), 2.5 * len(columns)),
            sharex=True, sharey="row", squeeze=False,
        )  # fmt: skip
    for column, row in zip(columns, axes, strict=True):
        for label, ax in zip(labels, row, strict=True):
            matched_loss_plane(sweep, label, column=column, ax=ax)
            ax.label_outer()
            if column != columns[0]:
                ax.set_title("")
    return fig


def two_divergences(clean_margin: float, margins: np.ndarray, ax: Axes | None = None) -> Axes:
    """Both KL divergences between a clean and an attacked prediction of two classes.

    Args:
        clean_margin: of the image, in logits.
        margins: (T,) margins that an attack may leave it, in logits.
        ax: where to draw.

    Returns:
        The axes: KL(clean, attacked) and KL(attacked, clean) in nats against the attacked margin.
    """
    ax = figure(1)[1][0] if ax is None else ax
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
