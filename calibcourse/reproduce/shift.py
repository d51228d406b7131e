"""Calibration under a shift of the images, as recorded: who keeps it, how far, who ties."""

import numpy as np
from matplotlib.figure import Figure

from .. import plots
from .._checks import check_choice
from ..data.shift import STRENGTHS, UNITS
from .configs import ComparisonConfig
from .markdown import markdown_table, over_seeds
from .outcomes import TEMPERATURE, trained_as
from .records import Sweep

SHIFT_METHODS = ("CE", TEMPERATURE, "label smoothing", "CalMO")
RECORDED_QUANTITIES = ("accuracy", "confidence", "ece", "kce", "loss", "brier", "noise_floor")
DERIVED_QUANTITIES = ("error", "doubt", "over_confidence", "band_low", "band_high")
QUANTITY_NAMES = {
    "accuracy": "accuracy",
    "error": "error rate",
    "doubt": "doubt u",
    "over_confidence": "over-confidence",
    "ece": "ECE",
    "band_low": "|u − err|",
    "band_high": "u + err",
    "loss": "NLL",
}


def shift_values(
    sweep: Sweep[ComparisonConfig], quantity: str, method: str, kind: str
) -> np.ndarray:
    """One quantity of one method on test images under one kind of shift.

    Args:
        sweep: runs of the table "shift".
        quantity: "accuracy", "confidence", "ece", "kce", "loss", "brier", "noise_floor" (the mean
            ECE of a calibrated network with these confidences); or made of these: "error",
            "doubt" (u = 1 - mean confidence), "over_confidence" (err - u), "band_low" (|u - err|),
            "band_high" (u + err).
        method: of `SHIFT_METHODS`; the temperature was fitted on validation images as they are.
        kind: of `STRENGTHS`.

    Returns:
        (1 + strengths, seeds) float64: the images as they are, then by strength.

    Raises:
        ValueError: an unknown quantity, method or kind; a sweep without such runs.
    """
    check_choice(quantity, "quantity", (*RECORDED_QUANTITIES, *DERIVED_QUANTITIES))
    check_choice(method, "method", SHIFT_METHODS)
    check_choice(kind, "kind", STRENGTHS)
    if quantity in DERIVED_QUANTITIES:
        accuracy, confidence = (
            shift_values(sweep, name, method, kind) for name in ("accuracy", "confidence")
        )
        error, doubt = 1 - accuracy, 1 - confidence
        return {
            "error": error,
            "doubt": doubt,
            "over_confidence": error - doubt,
            "band_low": abs(doubt - error),
            "band_high": doubt + error,
        }[quantity]
    runs = sorted(sweep.select(label=trained_as(method)).runs, key=lambda run: run.config.seed)
    at = "_scaled" if method == TEMPERATURE else ""
    names = ["test", *(f"{kind}_{strength:g}" for strength in STRENGTHS[kind])]
    columns = [f"{name}{at}_{quantity}" for name in names]
    for run in runs:
        check_choice(columns[-1], "a column of the sweep", run.history.columns)
    return np.array([[run.history.rows[-1][column] for run in runs] for column in columns])


def least_calibration_error(sweep: Sweep[ComparisonConfig], kind: str) -> list[list[str]]:
    """Which methods have the least ECE under a kind of shift, ties included.

    A method ties with the one of the lowest mean unless, for every seed, its ECE lies above the
    other's by more than the noise floor, the ECE that chance alone gives a calibrated network.

    Args:
        sweep: runs of the table "shift".
        kind: of `STRENGTHS`.

    Returns:
        For the images as they are, then for each strength: labels, at least one.

    Raises:
        ValueError: as `shift_values`.
    """
    ece = {method: shift_values(sweep, "ece", method, kind) for method in SHIFT_METHODS}
    floor = {method: shift_values(sweep, "noise_floor", method, kind) for method in SHIFT_METHODS}
    found = []
    for place in range(1 + len(STRENGTHS[kind])):
        best = min(SHIFT_METHODS, key=lambda method: float(ece[method][place].mean()))
        reach = ece[best][place] + floor[best][place]
        found.append([m for m in SHIFT_METHODS if m == best or (ece[m][place] <= reach).any()])
    return found


def shift_text(sweep: Sweep[ComparisonConfig], quantity: str = "ece") -> str:
    """One quantity under every shift in Markdown, a row per kind and strength.

    Args:
        sweep: runs of the table "shift".
        quantity: as for `shift_values`.

    Returns:
        Markdown: mean ± standard deviation over seeds; of ECE, bold where least or tied
        (`least_calibration_error`).

    Raises:
        ValueError: as `shift_values`.
    """
    rows = []
    for number, (kind, strengths) in enumerate(STRENGTHS.items()):
        values = {method: shift_values(sweep, quantity, method, kind) for method in SHIFT_METHODS}
        least = least_calibration_error(sweep, kind)
        names = ["images as they are", *(f"{kind} {s:g} ({UNITS[kind]})" for s in strengths)]
        for place, name in enumerate(names):
            if place == 0 and number > 0:
                continue  # the same images under every kind
            cells = []
            for method in SHIFT_METHODS:
                cell = over_seeds(values[method][place], 3)
                bold = quantity == "ece" and method in least[place]
                cells.append(f"**{cell}**" if bold else cell)
            rows.append([name, *cells])
    return markdown_table([QUANTITY_NAMES.get(quantity, quantity), *SHIFT_METHODS], rows)


def shift_figure(sweep: Sweep[ComparisonConfig]) -> Figure:
    """ECE against strength, one panel per kind of shift, a line per method and a dot per seed.

    Args:
        sweep: runs of the table "shift".

    Returns:
        The figure; the grey line is the mean noise floor of CE.
    """
    colors = (plots.WRONG, plots.TEST, plots.BOUND, plots.TRAIN)
    fig, axes = plots.panels(1, len(STRENGTHS), (2.9 * len(STRENGTHS) + 1.4, 3.3), sharey=True)
    for ax, (kind, strengths) in zip(axes[0], STRENGTHS.items(), strict=True):
        x = np.array([0, *strengths])
        floor = shift_values(sweep, "noise_floor", "CE", kind).mean(1)
        ax.plot(x, floor, color=plots.NOISE, lw=4, alpha=0.6, label="noise floor")
        for method, color, marker in zip(SHIFT_METHODS, colors, plots.MARKERS, strict=False):
            ece = shift_values(sweep, "ece", method, kind)
            ax.plot(x, ece.mean(1), color=color, lw=1.5, marker=marker, ms=4, label=method)
            ax.plot(x, ece, ".", color=color, ms=3, alpha=0.6)
        ax.set(title=kind, xlabel=UNITS[kind])
    axes[0, 0].set(ylabel="test ECE", ylim=(0, None))
    axes[0, -1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig
