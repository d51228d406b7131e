"""Every figure: drawn on the axes given, made alike twice, in the style of the course."""

import base64
import copy
import io
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import rgb_to_hsv, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from plots_cases import (
    CLASSES,
    CURVE,
    DOTS,
    FLIPS,
    IMAGES,
    LOGITS,
    MARGINS,
    PUBLISHED,
    RUN,
    STEPS,
    TAIL,
    TARGET,
    TOTALS,
    WINDOWS,
    content,
    history,
    lines,
    words,
)
from torch import nn

from calibcourse import plots
from calibcourse.bounds import NATS_PER_DECADE
from calibcourse.metrics import class_over_confidence

# A tensor where matplotlib wants an array works today and warns.
pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


# The k-th rung from below stands k - 4 decades high, and everything climbs a decade per probe.
LADDER = history(
    **{
        f"{split}_log_{rung}": (height + np.arange(-4, -1)) * NATS_PER_DECADE
        for split in ("train", "test")
        for height, rung in enumerate(plots.RUNGS)
    }
)


# Every function that draws on one axes, with input that is enough for it.
ONE_AXES = {
    "across_runs": ({"SGD": [1.0, 2.0]}, {"train ECE": {"SGD": [0.1, 0.2]}}),
    "against_margin": (MARGINS, MARGINS.exp(), "λ"),
    "amplification": (torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.1]), torch.tensor([1.5, 2.0])),
    "class_gaps": (class_over_confidence(LOGITS, TARGET), CLASSES[:2]),
    "components": (torch.tensor([-3.0, 1.0]), torch.tensor([2.0, -1.5]), ("SGD", "Muon")),
    "confidence_histogram": (torch.tensor([0.9, 0.3, 0.8]), torch.tensor([True, True, False])),
    "correlation_dots": (DOTS, {"train ECE": plots.TRAIN, "test ECE": plots.TEST}, PUBLISHED),
    "doubt_and_error": (RUN, "validation"),
    "edge_of_stability": (STEPS, [np.array([1.0, 9.0, 11.0])], 0.2),
    "estimates_by_size": ([10, 100], {15: torch.tensor([[0.2, 0.4], [0.1, 0.2]])}),
    "every_run": ({"SGD": np.array([[1.0, 2.0], [3.0, np.inf]])}, "ECE", plots.TRAIN),
    "float32_error": ([1.0, 5.0], {"naive": [1e-6, 1e-3], "shifted": [1e-7, 1e-7]}),
    "ladder": (LADDER,),
    "margin_histogram": ({"clean": MARGINS, "attacked": MARGINS - 1},),
    "margin_scatter": (MARGINS, MARGINS - 1),
    "pairing_matrix": (np.array([[1.0, -0.5], [0.2, 1.0]]), ["SGD", "Muon"]),
    "reliability_diagram": (CURVE,),
    "reliability_of_predictions": (torch.linspace(0.3, 1, 30), torch.arange(30) % 3 > 0),
    "sam_step": ((10.0, 1.0), (1.0, 1.0), 0.5),
    "sandwich": (RUN, "validation"),
    "shares": ({"SGD": 0.25, "Muon": 0.5}, "share"),
    "shift_band": ([LOGITS / (1 + grade) for grade in range(6)], TARGET, "rotation"),
    "slack_bars": (TOTALS,),
    "spectrum": ({"dense": torch.tensor([-1.0, 0.0, 4.0])},),
    "tail_band": (torch.tensor([3.0, 1.0, -1.0]), TAIL),
    "tempered_reliability": (LOGITS, TARGET),
    "trajectory": (STEPS, {"train": np.array([3.0, 2.0, 1.0])}, {"train": plots.TRAIN}),
    "two_divergences": (1.0, np.array([-1.0, 0.5, 1.0])),
}  # fmt: skip


# Every function that makes a figure of several panels.
FIGURES = {
    "case_grid": ({"case_a": LOGITS, "case_b": 2 * LOGITS}, TARGET, CLASSES[:2], (1.0, 2.0)),
    "epsilon_grid": (FLIPS, IMAGES, CLASSES, (0, 16)),
    "image_grid": (IMAGES.inputs, ["a", "b", "c"], 2),
    "logit_bounds_grid": ({"sure": torch.tensor([4.0, 0, 0]), "torn": torch.tensor([1.0, 1, 0])},),
    "shift_grid": (FLIPS, IMAGES),
    "snapshots": ([(CURVE, MARGINS, 3.0), (CURVE, MARGINS + 1, 5.25)], [0, 1200]),
    "temperature_grid": (LOGITS, TARGET, (0.5, 2.0), (4, 8)),
    "three_instruments": (CURVE, MARGINS, [0, 1200], [1.0, 3.0]),
    "window_grid": (RUN, WINDOWS),
}


# Those that fill the axes they get, and what is no figure of results.
SEVERAL_AXES = {"logit_bounds", "noise_band", "radius_panel", "shift_panel", "window_panel"}


TOOLS = {
    "LiveFigure", "attack_at", "case_title", "contrast", "figure", "from_step_zero", "is_drawing",
    "mosaic", "panels", "png_bytes", "readable", "shift_logits", "show", "wilson_interval",
}  # fmt: skip


def test_every_public_function_is_tested_here():
    functions = {name for name in plots.__all__ if callable(getattr(plots, name))}
    assert functions == {*ONE_AXES, *FIGURES, *SEVERAL_AXES, *TOOLS}


def unchanged(a, b) -> bool:
    """Whether two inputs are equal to the last bit, NaN equal to itself."""
    if isinstance(a, torch.Tensor):
        a, b = a.numpy(), b.numpy()
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(unchanged(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(unchanged, a, b))
    if isinstance(a, nn.Module):
        return unchanged(a.state_dict(), b.state_dict())
    if isinstance(a, SimpleNamespace):
        return unchanged(vars(a), vars(b))
    if is_dataclass(a):
        return all(unchanged(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b or a != a


@pytest.mark.parametrize("name", ONE_AXES)
def test_a_plot_draws_on_the_given_axes_or_makes_one(name):
    draw, given = getattr(plots, name), ONE_AXES[name]
    before = copy.deepcopy(given)
    _, (first, second) = plots.figure(2)
    empty = content(second)
    plt.sca(second)  # nothing may land on whatever axes is current
    assert draw(*given, ax=first) is first
    assert content(second) == empty and len(plt.get_fignums()) == 1
    assert first.lines or first.collections or first.patches or first.images

    own = draw(*given)
    assert len(plt.get_fignums()) == 2 and own.figure is plt.figure(plt.get_fignums()[-1])
    assert own.figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0) and own.figure.dpi == 110
    assert content(own) != empty
    assert words(own) == words(first) and own.get_xlabel() == first.get_xlabel()
    for ours, theirs in zip(own.lines, first.lines, strict=True):
        np.testing.assert_array_equal(ours.get_data(), theirs.get_data())
    assert unchanged(given, before)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_made_anew_and_alike_and_leaves_its_input_alone(name):
    make, given = getattr(plots, name), FIGURES[name]
    before = copy.deepcopy(given)
    one, two = make(*given), make(*given)
    assert isinstance(one, Figure) and one is not two and len(plt.get_fignums()) == 2
    assert [content(ax) for ax in one.axes] == [content(ax) for ax in two.axes]
    assert unchanged(given, before)


@pytest.mark.parametrize(
    ("name", "given", "n_axes"),
    [
        ("epsilon_grid", (FLIPS, IMAGES, CLASSES, (4,)), 2),
        ("logit_bounds_grid", ({"sure": torch.tensor([4.0, 0, 0])},), 2),
        ("snapshots", ([(CURVE, MARGINS, 3.0)], [0]), 2),
        ("temperature_grid", (LOGITS, TARGET, (1.0,), (4,)), 1),
        ("window_grid", (RUN, {"all": WINDOWS["all"]}), 2),
    ],
)
def test_a_grid_may_have_one_column(name, given, n_axes):
    axes = getattr(plots, name)(*given).axes
    assert len(axes) == n_axes and axes[0].get_title()


def test_figure_is_a_row_of_panels_in_the_style_of_the_course():
    before = dict(plt.rcParams)
    fig, axes = plots.figure(3, width=2.0, height=1.5)
    assert fig.get_size_inches().tolist() == [6.0, 1.5] and axes == fig.axes and len(axes) == 3
    assert not any(axes[0].spines[side].get_visible() for side in ("top", "right"))
    assert axes[0].get_axisbelow() is True and axes[0].xaxis.get_gridlines()[0].get_visible()
    assert dict(plt.rcParams) == before  # the learner's own figures keep their style


def test_mosaic_lays_panels_out_in_the_order_of_their_letters():
    fig = plots.mosaic("ba;bc", 4.0, 3.0, height_ratios=(2, 1))
    spans = [(list(s.rowspan), list(s.colspan)) for s in (ax.get_subplotspec() for ax in fig.axes)]
    assert spans == [([0, 1], [0]), ([0], [1]), ([1], [1])]
    assert fig.axes[0].get_gridspec().get_height_ratios() == (2, 1)
    assert fig.get_size_inches().tolist() == [4.0, 3.0]


COLORS = ("TRAIN", "TEST", "CURVATURE", "MARGIN", "BOUND", "RIGHT", "WRONG", "IDEAL")


def test_colours_are_different_and_of_the_palette():
    colors = {getattr(plots, name) for name in COLORS}
    assert len(colors) == len(COLORS)
    okabe_ito = {
        "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000",
    }  # fmt: skip
    # Grey joins as the reference; two are too pale on white, and darkened.
    assert colors - okabe_ito == {plots.IDEAL, plots.BOUND, plots.RIGHT}
    assert len(set(plots.MARKERS)) == len(plots.MARKERS)


@pytest.mark.parametrize("name", [*COLORS, "NOISE"])
def test_marks_stand_out_from_white_and_their_words_can_be_read(name):
    """WCAG 2.2 asks for 3 : 1 (1.4.11) and for 4.5 : 1 (1.4.3)."""
    color = getattr(plots, name)
    assert plots.contrast(color) >= 3
    text = plots.readable(color)
    assert plots.contrast(text) >= 4.5
    assert (text == color.lower()) == (plots.contrast(color) >= 4.5)  # darkened only where needed


# The CSS filter invert(0.93) hue-rotate(180deg), by the matrices of the W3C's Filter Effects.
_KEPT = 0.93
_HALF_TURN = (2 * np.outer(np.ones(3), [0.213, 0.715, 0.072])) - np.eye(3)


def in_the_dark(color) -> str:
    inverted = _KEPT + (1 - 2 * _KEPT) * np.array(to_rgb(color))
    return to_hex(np.clip(_HALF_TURN @ inverted, 0, 1))


@pytest.mark.parametrize("ground", ["#121212", "#212121", "#131416"])
@pytest.mark.parametrize("name", [*COLORS, "NOISE"])
def test_marks_stand_out_on_a_dark_page_and_their_words_can_be_read(name, ground):
    """The grounds: white turned over, the cells of JupyterLab's dark theme, Furo's dark page."""
    color = getattr(plots, name)
    for shown, least in ((color, 3), (plots.readable(color), 4.5)):
        assert plots.contrast(ground) / plots.contrast(in_the_dark(shown)) >= least


def test_hues_stay_on_a_dark_page():
    """Within 15 degrees: what is blue in one theme is blue in the other."""
    assert in_the_dark("white") == "#121212"
    for name in set(COLORS) - {"WRONG", "IDEAL"}:  # black and grey have no hue
        light, dark = (rgb_to_hsv(to_rgb(c(getattr(plots, name))))[0] for c in (str, in_the_dark))
        assert abs((light - dark + 0.5) % 1 - 0.5) < 15 / 360, name


def test_every_dark_page_turns_drawings_over_alike():
    course = Path(plots.__file__).parents[1] / "course"
    pages = ("jupyter/labextension/static/style.css", "jupyter/nbconvert/index.html.j2",
             "site/static/site.css", "../_page.py")  # fmt: skip
    for page in pages:
        found = re.findall(r"filter: (invert.*?)[;\s]*\n?\s*}", (course / page).read_text("utf-8"))
        assert set(found) == {f"invert({_KEPT}) hue-rotate(180deg)"}, page


def test_contrast_is_that_of_the_standard():
    # W3C's own example: #767676 is the palest grey that passes 4.5 : 1.
    assert plots.contrast("#767676") > 4.5 > plots.contrast("#777777")


@pytest.mark.parametrize("name", [*ONE_AXES, *FIGURES])
def test_every_text_of_a_figure_can_be_read(name):
    given = (ONE_AXES | FIGURES)[name]
    drawn = getattr(plots, name)(*given)
    fig = drawn if isinstance(drawn, Figure) else drawn.get_figure()
    texts = [text for text in fig.findobj(Text) if text.get_text().strip()]
    assert texts
    for text in texts:
        assert plots.contrast(text.get_color()) >= 4.5, text


def test_png_holds_the_picture_and_nothing_of_the_machine():
    def draw(color: str) -> Figure:
        fig, (ax,) = plots.figure(1, width=2.0, height=1.0)
        ax.set_axis_off()
        ax.set_facecolor(color)
        fig.patch.set_facecolor(color)
        return fig

    first, again, other = (plots.png_bytes(draw(c)) for c in ("red", "red", "blue"))
    assert first == again != other and plt.get_fignums() == []
    picture = Image.open(io.BytesIO(first))
    assert picture.size == (220, 110) and picture.convert("RGB").getpixel((5, 5)) == (255, 0, 0)
    assert "Software" not in picture.info  # matplotlib's version would change the bytes


def test_show_publishes_picture_alternative_text_and_width(published):
    _, (ax,) = plots.figure(1, width=3.0, height=1.0)
    plots.show(ax, alt="A falling line.")  # an axes stands for its figure
    (message,) = published
    assert message["data"].keys() == {"image/png", "text/plain"}
    assert message["data"]["text/plain"] == "A falling line."
    wanted = {"alt": "A falling line.", "width": 330, "drawing": True}
    assert message["metadata"] == {"image/png": wanted}
    picture = Image.open(io.BytesIO(base64.b64decode(message["data"]["image/png"])))
    assert picture.size == (330, 110)
    assert plt.get_fignums() == []  # no notebook shows it twice


@pytest.mark.parametrize("alt", ["", " \n"])
def test_show_refuses_a_picture_without_words(alt, published):
    with pytest.raises(ValueError, match="alt must describe the figure"):
        plots.show(plots.figure()[0], alt=alt)
    assert published == []


def test_live_figure_replaces_its_own_picture(published):
    drawn = []

    def draw(height: float) -> Figure:
        drawn.append(height)
        return plots.figure(1, height=height)[0]

    live = plots.LiveFigure(draw, "A growing picture.", "growing")
    live.update(1.0)
    live.update(2.0)
    assert drawn == [1.0, 2.0]
    assert [message["transient"]["display_id"] for message in published] == ["growing"] * 2
    assert [message["update"] for message in published] == [False, True]
    assert all(message["data"]["text/plain"] == "A growing picture." for message in published)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_shows_each_image_under_its_caption(channels):
    images = torch.linspace(0, 1, 3 * channels * 4).reshape(3, channels, 2, 2)
    fig = plots.image_grid(images, ["a", "b\nc", "d"], columns=2, axes_size=1.0)
    assert len(fig.axes) == 4 and not any(ax.axison for ax in fig.axes)
    assert [ax.get_title() for ax in fig.axes] == ["a", "b\nc", "d", ""]
    assert [len(ax.images) for ax in fig.axes] == [1, 1, 1, 0]
    for ax, image in zip(fig.axes, images, strict=False):
        (shown,) = ax.images
        wanted = image[0] if channels == 1 else image.permute(1, 2, 0)
        np.testing.assert_array_equal(shown.get_array(), wanted)
        assert shown.get_clim() == (0, 1)  # not stretched: images compare


def test_what_holds_photographs_is_no_drawing(published):
    with_photograph = plots.mosaic("ab", 2.0, 1.0)
    plots.style.draw_image(torch.rand(1, 2, 2), with_photograph.axes[1])
    heat_map = plots.figure(1, 1.0, 1.0)[0]
    heat_map.axes[0].imshow(np.eye(2))
    for fig in (with_photograph, heat_map):
        plots.show(fig, alt="x")
    assert [m["metadata"]["image/png"]["drawing"] for m in published] == [False, True]


def test_image_grid_wants_a_caption_for_each_image():
    with pytest.raises(ValueError, match=r"one entry per image \(3\), got 2"):
        plots.image_grid(torch.zeros(3, 1, 2, 2), ["a", "b"])


@pytest.mark.parametrize("log", [False, True])
def test_trajectory_labels_each_curve_at_its_end(log):
    values = {"train": np.array([3.0, 2.0, 1.0]), "test": np.array([4.0, 5.0, 6.0])}
    colors = {"test": plots.TEST, "train": plots.TRAIN}
    ax = plots.trajectory(STEPS, values, colors, ylabel="loss (nats)", log=log)
    for name, color in colors.items():
        (found,) = lines(ax, color=color)
        np.testing.assert_array_equal(found, [STEPS, values[name]])
        (label,) = (text for text in ax.texts if text.get_text().strip() == name)
        assert label.xy == (20, values[name][-1])
        assert label.get_color() == plots.readable(color)
    assert ax.get_yscale() == ("log" if log else "linear") and ax.get_ylabel() == "loss (nats)"
