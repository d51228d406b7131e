"""Explorers: sliders beside a picture that follows them. Each has a static twin in `plots`."""

import base64
import functools
from collections.abc import Callable, Mapping, Sequence
from html import escape

import ipywidgets
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from . import plots
from .data import Split
from .data.shift import STRENGTHS
from .metrics import class_over_confidence, reliability_curve
from .reproduce import (
    GRID,
    Run,
    Sweep,
    TrajectoryConfig,
    correlation,
    matched_loss_plane,
    probes_within,
    recorded_sharpness,
    weights_panel,
)


class Explorer(ipywidgets.VBox):
    """Controls above a picture; whenever a control changes, the picture is drawn again.

    The picture is inline PNGs in an HTML widget: it needs no output capture, so it works alike
    in JupyterLab, on Binder and with Colab's ipywidgets 7, and it carries alternative text. Panels
    that are figures of their own stand side by side, or in a narrow window below each other.

    Args:
        draw: called with the controls' values by keyword, returns the figures, left to right.
        alt: called likewise, returns the alternative text.
        **controls: one ipywidgets control per keyword of `draw`.
    """

    def __init__(
        self,
        draw: Callable[..., list[Figure]],
        alt: Callable[..., str],
        **controls: ipywidgets.Widget,
    ):
        self.controls = controls
        self._draw, self._alt = draw, alt
        self._picture = ipywidgets.HTML()
        super().__init__([*controls.values(), self._picture])
        for control in controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, _change=None) -> None:
        values = {name: control.value for name, control in self.controls.items()}
        images = "".join(_image(fig) for fig in self._draw(**values))
        self._picture.value = (
            f'<div role="img" aria-label="{escape(self._alt(**values))}" '
            f'style="display: flex; flex-wrap: wrap; align-items: flex-start">{images}</div>'
        )

    def __repr__(self) -> str:  # the cell's text output: the same in every run
        return f"Explorer with {' and '.join(c.description for c in self.controls.values())}"


def _image(fig: Figure) -> str:
    """HTML of a figure: at most its own size, and in a row of panels at least 300 pixels wide."""
    width = round(fig.get_figwidth() * plots.STYLE["figure.dpi"])
    look = "calibcourse-drawing" if plots.is_drawing(fig) else "calibcourse-photographs"
    data = base64.b64encode(plots.png_bytes(fig)).decode()
    style = f"flex: 1 1 300px; min-width: 0; max-width: min(100%, {width}px)"
    return f'<img class="{look}" src="data:image/png;base64,{data}" alt="" style="{style}">'


def _panels() -> tuple[list[Figure], list[Axes]]:
    """Two figures of one panel each, and the panels."""
    pairs = [plots.figure(1, 4.6, 3.4) for _ in range(2)]
    return [fig for fig, _ in pairs], [ax for _, (ax,) in pairs]


def slider(description: str, value, low, high, step=1) -> ipywidgets.Widget:
    """A labelled slider that reports its value when released, so a slow machine keeps up."""
    kind = ipywidgets.IntSlider if isinstance(value, int) else ipywidgets.FloatSlider
    return kind(
        value=value,
        min=low,
        max=high,
        step=step,
        description=description,
        continuous_update=False,
        style={"description_width": "9em"},
        layout=ipywidgets.Layout(width="29em"),
    )


def temperature_explorer(logits: Tensor, target: Tensor) -> Explorer:
    """Lesson 01: divide the logits by a temperature, choose the bins, watch the diagram.

    Args:
        logits: (N, K) float.
        target: (N,) int64.

    Returns:
        A widget; its static twin is `plots.temperature_grid`.
    """

    def draw(temperature: float, n_bins: int) -> list[Figure]:
        fig, (ax,) = plots.figure(1, 4.6, 4.4)
        plots.tempered_reliability(logits, target, temperature, n_bins, ax=ax)
        return [fig]

    def alt(temperature: float, n_bins: int) -> str:
        return f"Reliability diagram at temperature {temperature:.2f} with {n_bins} bins."

    return Explorer(
        draw,
        alt,
        temperature=slider("temperature", 1.0, 0.25, 6.0, 0.05),
        n_bins=slider("number of bins", 15, 1, 60),
    )


def epsilon_explorer(model: nn.Module, split: Split, classes: Sequence[str]) -> Explorer:
    """Lesson 02: the radius of the ball against the margins, with images that flip.

    Args:
        model: maps inputs to logits, in eval mode.
        split: the images to attack, anew at each radius; some hundred keep it swift.
        classes: names of the classes.

    Returns:
        A widget; its static twin is `plots.epsilon_grid`.
    """

    def draw(radius: int) -> list[Figure]:
        fig = plots.mosaic("hhhh;1234", width=6.4, height=5.0, height_ratios=(3, 2))
        plots.radius_panel(fig.axes, *plots.attack_at(model, split, radius), classes, radius)
        return [fig]

    def alt(radius: int) -> str:
        return f"Margin histogram and flipped images at radius {radius}/255."

    return Explorer(draw, alt, radius=slider("ε in 1/255", 4, 0, 16))


def learning_rate_explorer(sweep: Sweep) -> Explorer:
    """Lesson 03: the recorded sharpness of gradient descent, one learning rate at a time.

    Args:
        sweep: runs of gradient descent at several learning rates.

    Returns:
        A widget; its static twin is `reproduce.learning_rate_grid`.
    """
    rates = sorted({run.config.lr for run in sweep.runs})

    def draw(rate: float) -> list[Figure]:
        fig, (ax,) = plots.figure(1, 5.4, 3.6)
        recorded_sharpness(sweep, rate, ax=ax)
        return [fig]

    def alt(rate: float) -> str:
        return f"Sharpness of gradient descent at learning rate {rate:g} against step."

    return Explorer(draw, alt, rate=_choice("learning rate η", rates, 1))


def logits_explorer(n_classes: int = 10) -> Explorer:
    """Lesson 05: drag the logits of one image and watch every per-sample bound move.

    Args:
        n_classes: K, at least 3; class 0 is the label, class 1 a rival, all others are level.

    Returns:
        A widget; its static twin is `plots.logit_bounds_grid`.
    """

    def draw(label: float, rival: float, others: float) -> list[Figure]:
        figures, axes = _panels()
        plots.logit_bounds(_three_levels(label, rival, others, n_classes), 0, axes)
        return figures

    def alt(label: float, rival: float, others: float) -> str:
        return (
            f"Probabilities and per-sample bounds at logits {label:g} for the label, {rival:g} for "
            f"a rival and {others:g} for all others."
        )

    return Explorer(
        draw,
        alt,
        label=slider("label's logit", 3.0, -5.0, 5.0, 0.5),
        rival=slider("one rival's", 1.0, -5.0, 5.0, 0.5),
        others=slider("all others'", -2.0, -5.0, 5.0, 0.5),
    )


def _three_levels(label: float, rival: float, others: float, n_classes: int) -> Tensor:
    return torch.tensor([label, rival] + [others] * (n_classes - 2))


def window_explorer(sweep: Sweep) -> Explorer:
    """Lesson 04: which probes of a run are used, and the correlation with sharpness that follows.

    Args:
        sweep: recorded runs of several optimizers at several learning rates; those of its first
            seed are shown.

    Returns:
        A widget; its static twin is `plots.window_grid`.
    """
    runs: dict[str, list[Run[TrajectoryConfig]]] = {}
    for run in sweep.select(seed=sweep.runs[0].config.seed).runs:
        runs.setdefault(run.config.label, []).append(run)
    ranks = range(1, min(map(len, runs.values())) + 1)

    def draw(optimizer: str, rank: int, percent: int, spacing: str) -> list[Figure]:
        run = runs[optimizer][rank - 1]
        used = probes_within(run, percent / 100, spacing)
        values = {
            column: correlation(run.history, column, steps=used)
            for column in ("train_ece", "test_ece")
        }
        figures, axes = _panels()
        plots.window_panel(axes, run.history, used, values)
        axes[0].set_title(f"{optimizer}, learning rate {run.config.lr:g}")
        axes[1].set_title(f"correlation r on {len(used)} probes")
        return figures

    def alt(optimizer: str, rank: int, percent: int, spacing: str) -> str:
        return (
            f"Sharpness and calibration errors of {optimizer}, learning rate {rank} of "
            f"{len(ranks)}, and one against the other on the first {percent} % of the run, "
            f"{spacing} spacing."
        )

    return Explorer(
        draw,
        alt,
        optimizer=_choice("optimizer", list(runs), 0),
        rank=_choice("learning rate no.", list(ranks), 1),
        percent=slider("first … % of run", 100, 10, 100, 5),
        spacing=_choice("spacing", ["even", "log"], 0),
    )


def _choice(description: str, options: list, index: int) -> ipywidgets.SelectionSlider:
    """A slider over a few named values, in the manner of `slider`.

    Not a dropdown: JupyterLab takes the arrow keys and letters typed into one for its own.
    """
    return ipywidgets.SelectionSlider(
        options=options,
        value=options[index],
        description=description,
        continuous_update=False,
        style={"description_width": "9em"},
        layout=ipywidgets.Layout(width="29em"),
    )


def matched_loss_explorer(sweep: Sweep) -> Explorer:
    """Lesson 06: one optimizer and learning rate before SGD, a quantity against training loss.

    Args:
        sweep: runs of several optimizers, SGD among them.

    Returns:
        A widget; its static twin is `reproduce.matched_loss_grid`.
    """
    rates: dict[str, list[float]] = {}
    for run in sweep.runs:
        rates.setdefault(run.config.label, []).append(run.config.lr)
    options = {label: sorted(set(lrs)) for label, lrs in rates.items() if label != "SGD"}

    columns = {"Train ECE": "train_ece", "Test ECE": "test_ece", "Sharpness": "sharpness"}

    def draw(label: str, rate: float, quantity: str) -> list[Figure]:
        fig, (ax,) = plots.figure(1, 5.6, 4.0)
        matched_loss_plane(sweep, label, rate, columns[quantity], ax=ax)
        ax.set_title(f"{label}, η = {rate:g}; SGD in grey")
        return [fig]

    def alt(label: str, rate: float, quantity: str) -> str:
        return f"{quantity} of {label} at learning rate {rate:g} against training loss."

    label = _choice("optimizer", list(options), 0)
    rate = _choice("learning rate η", options[label.value], 0)
    quantity = _choice("quantity", list(columns), 0)

    def offer_its_rates(change) -> None:
        rate.options = options[change.new]

    # Observed before the explorer does, so that a picture is drawn with a rate that was run.
    label.observe(offer_its_rates, names="value")
    return Explorer(draw, alt, label=label, rate=rate, quantity=quantity)


def weights_explorer(sweep: Sweep) -> Explorer:
    """Lesson 07: CalMO's two weights on the recorded grid, one cell at a time.

    Args:
        sweep: runs of the table "grid".

    Returns:
        A widget; its static twin is `reproduce.grid_figure`.
    """

    def draw(robust_weight: float, smooth_weight: float) -> list[Figure]:
        figures, axes = _panels()
        weights_panel(sweep, robust_weight, smooth_weight, axes)
        return figures

    def alt(robust_weight: float, smooth_weight: float) -> str:
        return (
            f"Validation ECE along training and test accuracy against test ECE at robust weight "
            f"{robust_weight:g} and smoothness weight {smooth_weight:g}, beside cross-entropy."
        )

    return Explorer(
        draw,
        alt,
        robust_weight=_choice("robust term λ_r", list(GRID["robust_weight"]), 1),
        smooth_weight=_choice("smooth term λ_s", list(GRID["smooth_weight"]), 2),
    )


def shift_explorer(model: nn.Module, split: Split) -> Explorer:
    """Lesson 08: kind and strength of a shift against the diagram, the error and the doubt.

    Args:
        model: maps inputs to logits, in eval mode.
        split: the images that are shifted; a thousand keep it swift.

    Returns:
        A widget; its static twin is `plots.shift_grid`.
    """
    logits = functools.cache(functools.partial(plots.shift_logits, model, split))

    def draw(kind: str, grade: int) -> list[Figure]:
        figures, axes = _panels()
        plots.shift_panel(axes, logits(kind), split.target, kind, grade)
        return figures

    def alt(kind: str, grade: int) -> str:
        strength = (0.0, *STRENGTHS[kind])[grade]
        return (
            f"Reliability diagram under {kind} of strength {strength:g}, and error rate, doubt and "
            "ECE at every strength."
        )

    return Explorer(
        draw,
        alt,
        kind=_choice("kind of shift", list(STRENGTHS), 0),
        grade=slider("strength, grade", 2, 0, len(STRENGTHS["rotation"])),
    )


def case_explorer(cases: Mapping[str, Tensor], target: Tensor, classes: Sequence[str]) -> Explorer:
    """Lesson 09: one audited network at a temperature, on the whole and class by class.

    Args:
        cases: name -> (N, K) logits.
        target: (N,) int64 labels, of all of them.
        classes: K names.

    Returns:
        A widget; its static twin is `plots.case_grid`.
    """

    def draw(case: str, temperature: float) -> list[Figure]:
        logits = cases[case] / temperature
        figures, (left, right) = _panels()
        plots.reliability_diagram(reliability_curve(logits, target), ax=left)
        left.set_title(plots.case_title(case, logits, target, temperature))
        plots.class_gaps(class_over_confidence(logits, target), classes, ax=right)
        return figures

    def alt(case: str, temperature: float) -> str:
        return (
            f"Reliability diagram of {case} at temperature {temperature:.2f}, and the "
            "over-confidence of each of its classes."
        )

    return Explorer(
        draw,
        alt,
        case=_choice("case", list(cases), 0),
        temperature=slider("temperature", 1.0, 0.5, 4.0, 0.1),
    )
