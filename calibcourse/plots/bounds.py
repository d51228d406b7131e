"""The ladder of bounds, its slack, and the sandwich around ECE."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..bounds import (
    NATS_PER_DECADE,
    confidence_gap_bounds,
    logit_hessian_bounds,
    softmax_tail_bounds,
)
from ..history import History
from ..margins import true_margin
from .style import (
    BOUND,
    CURVATURE,
    IDEAL,
    STYLE,
    TEST,
    TRAIN,
    WRONG,
    figure,
    on_axes,
    readable,
    spread_apart,
)

# The rungs of `curvature_ladder`, from the weakest lower bound to the paper's upper one.
RUNGS = ("l4", "l3", "l2", "l1", "u0", "u1", "u2", "u3", "u4", "u5", "u6")


@on_axes(width=7.2, height=4.6)
def ladder(history: History, split: str = "train", ax: Axes | None = None) -> Axes:
    """Every rung of the curvature ladder along a run, from the weakest lower to the weakest upper.

    Args:
        history: with the columns of `LadderProbe` for the split.
        split: "train", "validation" or "test".
        ax: where to draw.

    Returns:
        The axes: the curvature itself drawn thick, the bounds as edges of ever paler bands, the
        paper's dashed; a line leads from the end of each to its name.
    """
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
    heights = spread_apart([values[-1] for values in decades.values()], 0.04 * (high - low))
    beside = steps[-1] + 0.04 * (steps[-1] - steps[0])
    for (rung, values), height in zip(decades.items(), heights, strict=True):
        color = readable({"u0": CURVATURE, "u6": IDEAL}.get(rung, BOUND))
        leader = {"arrowstyle": "-", "color": color, "lw": 0.7, "shrinkA": 0, "shrinkB": 0}
        ax.annotate(f" {names.get(rung, rung)}", (steps[-1], values[-1]), (beside, height),
                    color=color, va="center", fontsize=9, annotation_clip=False,
                    arrowprops=leader)  # fmt: skip
    ax.set(xlabel="training step", ylabel="$\\log_{10}$ of the bound")
    return ax


@on_axes()
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
    ax.set(
        xlabel="$\\log_{10}$ of the factor lost, in the order of the rungs: "
        "below $\\lambda_{\\max}$ | above"
    )
    return ax


def logit_bounds(logits: Tensor, target: int, axes: Sequence[Axes]) -> None:
    """One image: its probabilities, and every per-sample lemma as a value between its bounds.

    Args:
        logits: (K,) float.
        target: the label.
        axes: two: for the probabilities, and for the lemmas.
    """
    bars, chart = axes
    logits = logits.detach().cpu()
    row, label = logits[None], torch.tensor([target])
    colors = [TEST if k == target else IDEAL for k in range(len(logits))]
    p = logits.double().softmax(0).numpy()
    bars.bar(range(len(logits)), p, color=colors, alpha=0.8)
    right = "right" if int(logits.argmax()) == target else "wrong"
    bars.set_title(f"margin {true_margin(row, label).item():+.1f}: {right}")
    bars.set(ylim=(0, 1), xlabel="class (label in colour)", ylabel="probability")
    bars.set_xticks(range(0, len(logits), max(1, len(logits) // 5)))

    gap, tail = confidence_gap_bounds(row, label), softmax_tail_bounds(row, label)
    curvature = logit_hessian_bounds(row)
    lines = {  # value; this course's bounds; the paper's
        "B.2  |1{ŷ=y} − c|": (gap.value, (), (gap.upper,)),
        "B.3  $1 - p_y$": (
            tail.value, (tail.lower, tail.upper), (tail.paper_lower, tail.paper_upper)
        ),
        "B.4  $\\lambda_{\\max}(H)$": (
            curvature.value,
            (torch.maximum(curvature.lower, curvature.trace_lower),
             torch.minimum(curvature.upper, curvature.trace_upper)),
            (curvature.paper_upper,),
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
