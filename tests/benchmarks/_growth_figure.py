"""The figure of growth: seconds per call, of ours and of the peers, each as far as it goes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from calibcourse.plots import BOUND, CURVATURE, IDEAL, MARGIN, TRAIN, figure
from calibcourse.plots.style import spread_apart

Record = dict[str, Any]

# One hue per quantity: ours strong, the peers pale beside it.
PANELS = (
    ("Calibration errors, 10 classes", {"growth_ece": TRAIN, "growth_kce": MARGIN}),
    ("Curvature of an MLP, 200 images", {"growth_lambda_max": CURVATURE, "growth_product": BOUND}),
)
SHORT = {"softmax + ": "", "dense definition": "all pairs", "plain eager torch": "eager torch"}
LABELS = 12.5  # points between two labels' lines
LEADER = dict(arrowstyle="-", lw=0.5, shrinkA=0, shrinkB=3)


def growth_figure(records: Sequence[Record]) -> Figure:
    """Two panels, log-log: the metrics by samples, the curvature by parameters.

    Args:
        records: the records of kind "growth".

    Returns:
        The figure; curves are labelled at their ends, a dotted line grows in proportion.
    """
    named = {record["name"]: record for record in records}
    fig, panels = figure(len(PANELS), width=4.9, height=4.1)
    for ax, (title, colors) in zip(panels, PANELS, strict=True):
        _panel(ax, [(named[name], color) for name, color in colors.items()])
        ax.set_title(title, loc="left")
    panels[0].set_ylabel("seconds per call")
    return fig


def _panel(ax: Axes, grown: Sequence[tuple[Record, str]]) -> None:
    ends = []
    for record, color in grown:
        for curve in record["curves"]:
            ours = curve["name"] == "ours"
            weight = dict(lw=2.4, ms=5, zorder=3) if ours else dict(lw=1.1, ms=3, alpha=0.75)
            ax.plot(curve["sizes"], curve["seconds"], "o-", color=color, **weight)
            ends.append((curve, color, f"{record['what']}, ours" if ours else short(curve["name"])))
    sizes = [size for curve, _, _ in ends for size in curve["sizes"]]
    seconds = [value for curve, _, _ in ends for value in curve["seconds"]]
    low, high = min(sizes), max(sizes)
    ax.set(xscale="log", yscale="log", xlabel=grown[0][0]["along"])
    room = (high / low) ** 0.5  # for the labels, beyond the last size
    ax.set_xlim(low / 1.4, high * room)
    ax.set_ylim(min(seconds) / 2.5, max(seconds) * 3)
    ax.set_xticks([10**power for power in range(round(math.log10(low)), 8)])
    ax.minorticks_off()
    _proportion(ax, low, high, min(seconds) / 1.7)
    _label_ends(ax, ends, high)


def _proportion(ax: Axes, low: float, high: float, bottom: float) -> None:
    """A dotted line of slope 1 below the curves."""
    start = high / 30
    ax.plot([start, high], [bottom, bottom * high / start], ":", color=IDEAL, lw=1.2)
    ax.annotate(
        "in proportion",
        (start, bottom),
        (-4, 0),
        textcoords="offset points",
        color=IDEAL,
        fontsize=8.5,
        ha="right",
        va="center",
    )


def _label_ends(ax: Axes, ends: Sequence[tuple[Record, str, str]], last: float) -> None:
    """Names beside the curves' ends, moved apart within a column."""
    points = ax.get_figure().get_figheight() * 72 * 0.8  # of the axes' height, about
    gap = LABELS / points * math.log10(ax.get_ylim()[1] / ax.get_ylim()[0])
    for cut_short in (False, True):
        column = [end for end in ends if (end[0]["sizes"][-1] < last) == cut_short]
        column.sort(key=lambda end: end[0]["seconds"][-1])
        heights = [math.log10(end[0]["seconds"][-1]) for end in column]
        for (curve, color, label), height in zip(column, spread_apart(heights, gap), strict=True):
            x, y = curve["sizes"][-1], curve["seconds"][-1]
            ax.annotate(
                label,
                (x, y),
                (x * 1.4, 10**height),
                color=color,
                va="center",
                fontsize=9,
                weight="bold" if label.endswith("ours") else "normal",
                arrowprops=None if cut_short else LEADER | {"color": color},
                annotation_clip=False,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],  # over other lines
            )


def short(name: str, replaced: Mapping[str, str] = SHORT) -> str:
    for long, brief in replaced.items():
        name = name.replace(long, brief)
    return name
