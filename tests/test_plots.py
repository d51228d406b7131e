"""Figures: what is drawn is what was given, in the colour that means it, read from the axes."""

import base64
import copy
import io
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import pairwise
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.stats
import torch
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_hex
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from calibcourse import plots
from calibcourse.attacks import RobustMargin
from calibcourse.bounds import NATS_PER_DECADE, TailBounds
from calibcourse.data import Split
from calibcourse.history import History
from calibcourse.metrics import ReliabilityCurve, noise_floor

# A tensor where matplotlib wants an array works today and warns.
pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


# --- reading an axes back


def lines(ax: Axes, **properties) -> list[np.ndarray]:
    """(2, n) data of the axes' lines with these properties, such as color or linestyle."""
    return [
        np.asarray(line.get_data(), dtype=float)
        for line in ax.lines
        if all(_agrees(name, getattr(line, f"get_{name}")(), v) for name, v in properties.items())
    ]


def _agrees(name: str, found, wanted) -> bool:
    return same_color(found, wanted) if "color" in name else found == wanted


def bars(ax: Axes, color: str) -> np.ndarray:
    """(n, 4) of the rectangles in a colour: left, bottom, width, height."""
    found = [
        patch.get_bbox().bounds
        for patch in ax.patches
        if isinstance(patch, mpl.patches.Rectangle) and same_color(patch.get_facecolor()[:3], color)
    ]
    return np.array(found)


def outline(ax: Axes, color: str) -> np.ndarray:
    """Heights of a histogram drawn as an outline."""
    (patch,) = (p for p in ax.patches if isinstance(p, mpl.patches.Polygon))
    assert same_color(patch.get_edgecolor()[:3], color)
    return patch.get_xy()[1:-1:2, 1]


def dots(ax: Axes, color: str) -> np.ndarray:
    """(n, 2) places of the scattered dots in a colour."""
    found = [
        np.asarray(c.get_offsets())
        for c in ax.collections
        if isinstance(c, mpl.collections.PathCollection)
        and same_color(c.get_facecolor()[0][:3], color)
    ]
    return np.concatenate(found)


def bands(ax: Axes) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(x, lower edge, upper edge) of every area between two curves."""
    found = []
    for band in ax.collections:
        if isinstance(band, mpl.collections.PolyCollection):
            points = band.get_paths()[0].vertices
            x = np.unique(points[:, 0])
            edges = [points[points[:, 0] == place, 1] for place in x]
            found.append(
                (x, np.array([e.min() for e in edges]), np.array([e.max() for e in edges]))
            )
    return found


def segments(ax: Axes, color: str) -> np.ndarray:
    """(n, 2, 2) ends of the straight segments in a colour."""
    found = [
        np.array(c.get_segments())
        for c in ax.collections
        if isinstance(c, mpl.collections.LineCollection) and same_color(c.get_color()[0][:3], color)
    ]
    return np.concatenate(found)


def words(ax: Axes) -> list[str]:
    """The texts that stand in an axes."""
    return [text.get_text() for text in ax.texts]


def legend(ax: Axes) -> dict[str, str]:
    """Label -> colour of the legend's entries."""
    box = ax.get_legend()
    colors = [
        h.get_facecolor()[:3] if isinstance(h, mpl.patches.Patch) else h.get_color()
        for h in box.legend_handles
        if hasattr(h, "get_color") or isinstance(h, mpl.patches.Patch)
    ]
    labels = [text.get_text() for text in box.get_texts()]
    return dict(zip(labels, map(to_hex, colors), strict=False))


def content(ax: Axes) -> str:
    """Everything that an axes shows, as text: equal for equal pictures."""
    shown = [(*line.get_data(), line.get_color(), line.get_marker()) for line in ax.lines]
    shown += [
        (c.get_offsets(), [p.vertices for p in c.get_paths()], c.get_facecolor(), c.get_edgecolor())
        for c in ax.collections
    ]
    shown += [(patch.get_path().vertices, patch.get_extents().bounds) for patch in ax.patches]
    shown += [image.get_array() for image in ax.images]
    shown += [(text.get_text(), text.get_position()) for text in ax.texts]
    shown += [ax.get_title(), ax.get_xlabel(), ax.get_ylabel(), ax.get_xlim(), ax.get_ylim()]
    return repr(shown)


# --- small inputs with known content

STEPS = np.array([0, 10, 20])
CURVE = ReliabilityCurve(
    edges=torch.tensor([0, 0.25, 0.5, 0.75, 1.0]).double(),
    count=torch.tensor([0, 5, 20, 75]),
    confidence=torch.tensor([math.nan, 0.4, 0.6, 0.9]).double(),
    accuracy=torch.tensor([math.nan, 0.2, 0.7, 0.8]).double(),
    over_confidence=torch.tensor([math.nan, 0.2, -0.1, 0.1]).double(),
)
MARGINS = torch.tensor([-30.0, -1.2, 0.6, 0.7, 40.0])  # two of them beyond the fixed axis
LOGITS = torch.tensor([[math.log(9.0), 0.0]] * 4, dtype=torch.float64)  # confidence 0.9
TARGET = torch.tensor([0, 0, 0, 1])  # accuracy 3/4
TAIL = TailBounds(
    SimpleNamespace(
        lower=torch.tensor([0.02, 0.2, 0.5]).log(),
        value=torch.tensor([0.03, 0.3, 0.6]).log(),
        upper=torch.tensor([0.04, 0.4, 0.7]).log(),
        paper_lower=torch.tensor([0.01, 0.1, 0.4]).log(),
        paper_upper=torch.tensor([0.05, 0.9, 20.0]).log(),
    )
)


def history(**columns) -> History:
    """A run probed at STEPS."""
    return History(
        [
            {"step": int(step)} | {name: float(values[i]) for name, values in columns.items()}
            for i, step in enumerate(STEPS)
        ]
    )


# The k-th rung from below stands k - 4 decades high, and everything climbs a decade per probe.
LADDER = history(
    **{
        f"{split}_log_{rung}": (height + np.arange(-4, -1)) * NATS_PER_DECADE
        for split in ("train", "test")
        for height, rung in enumerate(plots.RUNGS)
    }
)
SANDWICH = {
    "log_u0": np.log([2.0, 4.0, 0.5]),
    "log_u4": np.log([4.0, 40.0, 2.0]),
    "accuracy": [0.5, 0.9, 1.0],
    "confidence": [0.2, 0.95, 0.98],
    "ece": [0.35, 0.08, 0.02],
}
RUN = history(
    sharpness=[2.0, 8.0, 4.0],
    train_ece=[0.1, 0.4, 0.2],
    test_ece=[0.1, 0.2, 0.3],
    **{f"{split}_{name}": v for split in ("train", "validation", "test")
       for name, v in SANDWICH.items() if name != "ece" or split == "validation"},
)  # fmt: skip
TOTALS = {
    case: {rung: scale * lost for rung, lost in zip(
        ("l1", "l2", "l3", "l4", "u1", "u2", "u3", "u4", "u5", "u6"),
        (0.5, 0.51, 1.0, 2.0, 0.25, 0.75, 1.25, 2.0, 2.01, 4.0), strict=True)}
    for case, scale in (("early", 1), ("late", 2))
}  # fmt: skip
DOTS = {
    "train ECE": {"SGD": {0.1: [0.5, 0.6], 0.2: [0.7]}, "Muon": {0.01: [0.1], 0.02: [-0.2]}},
    "test ECE": {"SGD": {0.1: [-0.5], 0.2: [-0.7]}, "Muon": {0.01: [0.3], 0.02: [0.4]}},
}
PUBLISHED = {"SGD": (0.9, 0.05), "Muon": (0.8, 0.1)}


# Every function that draws on one axes, with input that is enough for it.
ONE_AXES = {
    "across_runs": ({"SGD": [1.0, 2.0]}, {"train ECE": {"SGD": [0.1, 0.2]}}),
    "against_margin": (MARGINS, MARGINS.exp(), "λ"),
    "amplification": (torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.1]), torch.tensor([1.5, 2.0])),
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
    "sam_step": ((10.0, 1.0), (1.0, 1.0), 0.5),
    "sandwich": (RUN, "validation"),
    "shares": ({"SGD": 0.25, "Muon": 0.5}, "share"),
    "slack_bars": (TOTALS,),
    "spectrum": ({"dense": torch.tensor([-1.0, 0.0, 4.0])},),
    "tail_band": (torch.tensor([3.0, 1.0, -1.0]), TAIL),
    "tempered_reliability": (LOGITS, TARGET),
    "trajectory": (STEPS, {"train": np.array([3.0, 2.0, 1.0])}, {"train": plots.TRAIN}),
    "two_divergences": (1.0, np.array([-1.0, 0.5, 1.0])),
}  # fmt: skip

FLIPS = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
with torch.no_grad():
    FLIPS[1].weight.copy_(torch.tensor([[8.0, 0, 0, 0], [0, 8.0, 0, 0], [0, 0, 8.0, 0]]))
# Two images of class 0 (margins 0.4 and 3.2) and one of class 1 that is taken for class 2.
IMAGES = Split(
    torch.tensor([[0.55, 0.5, 0, 0], [0.9, 0.5, 0, 0], [0, 0.4, 0.5, 0]]).reshape(3, 1, 2, 2),
    torch.tensor([0, 0, 1]),
)
CLASSES = ("coat", "shirt", "bag")
WINDOWS = {"all": ([0, 10, 20], {"train_ece": 0.9}), "early": ([0, 10], {"train_ece": 1.0})}

# Every function that makes a figure of several panels.
FIGURES = {
    "epsilon_grid": (FLIPS, IMAGES, CLASSES, (0, 16)),
    "image_grid": (IMAGES.inputs, ["a", "b", "c"], 2),
    "logit_bounds_grid": ({"sure": torch.tensor([4.0, 0, 0]), "torn": torch.tensor([1.0, 1, 0])},),
    "snapshots": ([(CURVE, MARGINS, 3.0), (CURVE, MARGINS + 1, 5.25)], [0, 1200]),
    "temperature_grid": (LOGITS, TARGET, (0.5, 2.0), (4, 8)),
    "three_instruments": (CURVE, MARGINS, [0, 1200], [1.0, 3.0]),
    "window_grid": (RUN, WINDOWS),
}

# Those that fill the axes they get, and what is no figure of results.
SEVERAL_AXES = {"logit_bounds", "noise_band", "radius_panel", "window_panel"}
TOOLS = {
    "LiveFigure", "attack_at", "figure", "from_step_zero", "mosaic", "panels", "png_bytes", "show",
    "wilson_interval",
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


# --- style


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


def test_colours_are_different_and_of_the_palette():
    names = ("TRAIN", "TEST", "CURVATURE", "MARGIN", "BOUND", "RIGHT", "WRONG", "IDEAL")
    colors = {getattr(plots, name) for name in names}
    assert len(colors) == len(names)
    okabe_ito = {
        "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000",
    }  # fmt: skip
    assert colors - okabe_ito == {plots.IDEAL}  # grey joins as the reference
    assert len(set(plots.MARKERS)) == len(plots.MARKERS)


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


@pytest.fixture
def published(monkeypatch):
    """What `display` publishes to a notebook."""
    shown = []

    class Shell:
        class display_pub:
            publish = staticmethod(lambda **what: shown.append(what))

    monkeypatch.setattr(InteractiveShell, "initialized", classmethod(lambda cls: True))
    monkeypatch.setattr(InteractiveShell, "instance", classmethod(lambda cls: Shell))
    return shown


def test_show_publishes_picture_alternative_text_and_width(published):
    _, (ax,) = plots.figure(1, width=3.0, height=1.0)
    plots.show(ax, alt="A falling line.")  # an axes stands for its figure
    (message,) = published
    assert message["data"].keys() == {"image/png", "text/plain"}
    assert message["data"]["text/plain"] == "A falling line."
    assert message["metadata"] == {"image/png": {"alt": "A falling line.", "width": 330}}
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
        assert label.xy == (20, values[name][-1]) and label.get_color() == color
    assert ax.get_yscale() == ("log" if log else "linear") and ax.get_ylabel() == "loss (nats)"


# --- calibration


@pytest.mark.parametrize("z", [1.0, 1.96, 3.0])
def test_wilson_interval_agrees_with_scipy(z):
    successes, trials = np.array([0.0, 1, 3, 10, 999]), np.array([1.0, 1, 7, 10, 1000])
    ours = plots.wilson_interval(successes, trials, z)
    level = 2 * scipy.stats.norm.cdf(z) - 1
    for k, n, low, high in zip(successes, trials, *ours, strict=True):
        theirs = scipy.stats.binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
        # Both compute in float64; the ends may be differences of numbers near 1.
        assert (low, high) == pytest.approx(theirs, abs=1e-12)
    assert (ours >= 0).all() and (ours <= 1).all()


@pytest.mark.parametrize("color", [plots.TRAIN, plots.TEST])
def test_reliability_diagram_draws_the_filled_bins(color):
    ax = plots.reliability_diagram(CURVE, color=color)
    left, width = [0.25, 0.5, 0.75], [0.25] * 3
    accuracy, confidence = [0.2, 0.7, 0.8], [0.4, 0.6, 0.9]
    np.testing.assert_allclose(bars(ax, color), np.transpose([left, [0] * 3, width, accuracy]))
    pale = [patch.get_alpha() for patch in ax.patches[:3]]
    assert pale[0] < 0.2 < pale[1] == pale[2]  # five samples say little
    gaps = np.stack([np.transpose([confidence, end]) for end in (accuracy, confidence)], axis=1)
    np.testing.assert_allclose(segments(ax, plots.BOUND), gaps)
    low, high = plots.wilson_interval(np.array([1.0, 14, 60]), np.array([5.0, 20, 75]))
    whiskers = np.stack([np.transpose([confidence, end]) for end in (low, high)], axis=1)
    np.testing.assert_allclose(segments(ax, color), whiskers)
    np.testing.assert_allclose(lines(ax, color=color, marker="o"), [[confidence, accuracy]])
    np.testing.assert_array_equal(lines(ax, color=plots.IDEAL, linestyle="--"), [[[0, 1]] * 2])
    # The strip of counts: shares of all samples, the largest fixed at 0.15.
    strip = np.array([5, 20, 75]) / 75 * 0.15
    np.testing.assert_allclose(bars(ax, plots.IDEAL), np.transpose([left, [0] * 3, width, strip]))
    assert legend(ax) == {
        "accuracy": color.lower(),
        "gap to confidence": plots.BOUND.lower(),
        "images per bin (largest 75%)": plots.IDEAL.lower(),
    }
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)


def test_reliability_diagram_leaves_out_what_is_not_wanted():
    ax = plots.reliability_diagram(CURVE, counts=False, legend=False)
    assert ax.get_legend() is None and len(bars(ax, plots.IDEAL)) == 0
    assert list(legend(plots.reliability_diagram(CURVE, counts=False))) == [
        "accuracy", "gap to confidence",
    ]  # fmt: skip


FLOOR = noise_floor(torch.tensor([0.4] * 5 + [0.6] * 20 + [0.9] * 75), n_bins=4, n_draws=200)


def test_reliability_diagram_can_show_what_chance_makes_of_a_calibrated_network():
    assert len(bars(plots.reliability_diagram(CURVE), plots.NOISE)) == 0
    ax = plots.reliability_diagram(CURVE, floor=FLOOR)
    low, high = FLOOR.accuracy_low[1:].numpy(), FLOOR.accuracy_high[1:].numpy()
    band = np.transpose([[0.25, 0.5, 0.75], low, [0.25] * 3, high - low])
    np.testing.assert_allclose(bars(ax, plots.NOISE), band)
    assert legend(ax)["calibrated network, by chance"] == plots.NOISE
    # A calibrated bin of n samples: sd √(c(1−c)/n); its band is some four of them wide.
    width = 4 * np.sqrt([0.4 * 0.6 / 5, 0.6 * 0.4 / 20, 0.9 * 0.1 / 75])
    np.testing.assert_allclose(high - low, width, rtol=0.35)  # few samples make steps of 1/n


def test_noise_band_spans_the_floor_on_either_axis():
    for along, axis in (("x", 1), ("y", 0)):
        ax = plots.noise_band(FLOOR, plots.figure()[1][0], along)
        box = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        assert box.get_points()[:, axis].tolist() == pytest.approx([FLOOR.low, FLOOR.high])
    with pytest.raises(ValueError, match="along"):
        plots.noise_band(FLOOR, ax, "z")
    values = {15: torch.tensor([[0.2, 0.4], [0.1, 0.2]])}
    bands = [
        len(plots.estimates_by_size([10, 100], values, floors=floors).collections)
        for floors in ((), (FLOOR, FLOOR))
    ]
    assert bands[1] == bands[0] + 1


def test_tempered_reliability_divides_the_logits_and_states_the_scores():
    # Odds of 9 become 3: confidence 3/4, which is the accuracy.
    ax = plots.tempered_reliability(LOGITS, TARGET, temperature=2.0, n_bins=5)
    np.testing.assert_allclose(lines(ax, color=plots.TEST, marker="o"), [[[0.75], [0.75]]])
    np.testing.assert_allclose(bars(ax, plots.TEST), [[0.6, 0, 0.2, 0.75]])
    nll = -(3 * math.log(0.75) + math.log(0.25)) / 4
    assert ax.get_title() == f"T = 2.00, 5 bins\nECE 0.000, NLL {nll:.2f} nats"
    plain = plots.tempered_reliability(LOGITS, TARGET, legend=False)
    assert "T = 1.00, 15 bins\nECE 0.150" in plain.get_title() and plain.get_legend() is None


def test_temperature_grid_has_a_row_per_binning_and_a_column_per_temperature():
    fig = plots.temperature_grid(LOGITS, TARGET, (0.5, 2.0), (4, 8))
    heads = [ax.get_title().split("\n")[0] for ax in fig.axes]
    assert heads == [f"T = {t}, {n} bins" for n in (4, 8) for t in ("0.50", "2.00")]
    assert [ax.get_legend() is not None for ax in fig.axes] == [True, False, False, False]
    for ax, (temperature, n_bins) in zip(
        fig.axes, [(0.5, 4), (2.0, 4), (0.5, 8), (2.0, 8)], strict=True
    ):
        alone = plots.tempered_reliability(LOGITS, TARGET, temperature, n_bins)
        np.testing.assert_array_equal(bars(ax, plots.TEST), bars(alone, plots.TEST))


def test_confidence_histogram_counts_right_and_wrong():
    confidence = torch.tensor([0.95, 0.99, 0.1, 0.95, 0.6])
    correct = torch.tensor([True, True, True, False, False])
    ax = plots.confidence_histogram(confidence, correct, n_bins=4)
    right = bars(ax, plots.RIGHT)
    np.testing.assert_array_equal(right[:, 0], [0, 0.25, 0.5, 0.75])
    np.testing.assert_array_equal(right[:, 3], [1, 0, 0, 2])
    np.testing.assert_array_equal(outline(ax, plots.WRONG), [0, 0, 1, 1])
    assert ax.get_yscale() == "log" and ax.get_xlim() == (0, 1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["right", "wrong"]


def on_fixed_axis(margins: torch.Tensor) -> np.ndarray:
    """Counts in the 50 bins from -10 to 15, with everything beyond in the first or last."""
    counts = np.histogram(margins.numpy(), np.linspace(-10, 15, 51))[0]
    counts[0] += (margins < -10).sum()
    counts[-1] += (margins > 15).sum()
    return counts


def test_three_instruments_show_one_moment():
    fig = plots.three_instruments(CURVE, MARGINS, [0, 1200], [1.0, 3.0])
    left, middle, right = fig.axes
    assert left.get_title() == "Test images, step 1,200"
    np.testing.assert_allclose(bars(left, plots.TEST)[:, 3], [0.2, 0.7, 0.8])
    np.testing.assert_array_equal(bars(middle, plots.MARGIN)[:, 3], on_fixed_axis(MARGINS))
    assert bars(middle, plots.MARGIN)[:, 3].sum() == len(MARGINS) and middle.get_xlim() == (-10, 15)
    np.testing.assert_array_equal(lines(right, color=plots.CURVATURE), [[[0, 1200], [1, 3]]])
    assert right.get_ylim()[0] == 0


def test_snapshots_show_one_moment_per_column():
    frames = [(CURVE, MARGINS, 3.0), (CURVE, MARGINS + 1, 5.25)]
    fig = plots.snapshots(frames, [0, 1200])
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == ["step 0\nsharpness 3.0", "step 1,200\nsharpness 5.2", "", ""]
    for ax, (_, margins, _) in zip(fig.axes[2:], frames, strict=True):
        np.testing.assert_array_equal(bars(ax, plots.MARGIN)[:, 3], on_fixed_axis(margins))
    fig.draw_without_rendering()
    for ax in fig.axes:  # the two rows have different units, so both need their numbers
        assert any(t.get_visible() and t.get_text() for t in ax.get_xticklabels())
    assert [ax.get_xlabel() for ax in fig.axes] == ["confidence"] * 2 + ["margin (logits)"] * 2
    assert [ax.get_ylabel() for ax in fig.axes] == ["accuracy", "", "training images", ""]


def test_estimates_by_size_draw_mean_and_range_of_every_binning():
    sizes = [10, 100]
    values = {
        n_bins: torch.tensor([[0.1, 0.3], [0.1, 0.2]]) * n_bins / 10 for n_bins in (50, 5, 15, 100)
    }
    ax = plots.estimates_by_size(sizes, values)
    found = lines(ax, color=plots.TEST)
    assert len(found) == len(values) == len(bands(ax))
    for n_bins, line, band in zip(sorted(values), found, bands(ax), strict=True):
        np.testing.assert_allclose(line, [sizes, values[n_bins].mean(1)])
        for got, wanted in zip(
            band, (sizes, values[n_bins].amin(1), values[n_bins].amax(1)), strict=True
        ):
            np.testing.assert_allclose(got, wanted)
    shades = [line.get_alpha() for line in ax.lines]
    assert all(a < b for a, b in pairwise(shades)) and shades[-1] == 1
    assert words(ax) == [f" {n_bins} bins" for n_bins in sorted(values)]
    assert [text.xy[1] for text in ax.texts] == pytest.approx(
        [0.15 * n / 10 for n in sorted(values)]
    )
    assert ax.get_xscale() == ax.get_yscale() == "log"


# --- margins


def test_margin_histogram_compares_shares_of_unlike_sets():
    clean, attacked = torch.tensor([-20.0, 20.0, 20.0, 20.0]), torch.tensor([-20.0, 0.25])
    ax = plots.margin_histogram({"clean": clean, "attacked": attacked})
    filled = bars(ax, plots.MARGIN)
    assert len(filled) == 40 and filled[0, 0] == -20 and filled[-1, 0] + filled[-1, 2] == 20
    np.testing.assert_allclose(filled[[0, -1], 3], [0.25, 0.75])
    np.testing.assert_allclose(outline(ax, plots.WRONG)[[0, 20]], [0.5, 0.5])
    assert filled[:, 3].sum() == outline(ax, plots.WRONG).sum() == 1
    np.testing.assert_array_equal(lines(ax, color=plots.IDEAL)[0][0], [0, 0])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["clean", "attacked"]


def test_margin_scatter_blackens_what_the_attack_turns():
    clean = torch.tensor([3.0, 1.0, -1.0, 2.0])
    robust = torch.tensor([1.0, -1.0, -2.0, -0.5])
    ax = plots.margin_scatter(clean, robust)
    np.testing.assert_array_equal(dots(ax, plots.WRONG), [[1, -1], [2, -0.5]])
    np.testing.assert_array_equal(dots(ax, plots.MARGIN), [[3, 1], [-1, -2]])
    diagonal, zero = lines(ax, color=plots.IDEAL)
    np.testing.assert_array_equal(diagonal, [[-2, 3]] * 2)
    np.testing.assert_array_equal(zero[1], [0, 0])


def test_tail_band_holds_the_images_between_both_pairs_of_bounds():
    ax = plots.tail_band(torch.tensor([3.0, 1.0, -1.0]), TAIL)
    x = [-1.0, 1.0, 3.0]  # ascending, so that a line is a line
    ((place, low, high),) = bands(ax)
    np.testing.assert_array_equal(place, x)
    np.testing.assert_array_equal(low, TAIL.lower.flip(0))
    np.testing.assert_array_equal(high, TAIL.upper.flip(0))
    papers = lines(ax, color=plots.IDEAL, linestyle="--")
    np.testing.assert_array_equal(papers[0], [x, TAIL.paper_lower.flip(0)])
    np.testing.assert_array_equal(papers[1], [x, TAIL.paper_upper.flip(0)])
    np.testing.assert_array_equal(dots(ax, plots.TEST), np.transpose([x, TAIL.value.flip(0)]))
    assert ax.get_yscale() == "log" and ax.get_ylim() == pytest.approx((0.02 / 3, 30))


def test_attack_at_measures_radii_in_gray_levels():
    clean, attacked, answers = plots.attack_at(FLIPS, IMAGES, 0)
    # 0.05, 0.4 and -0.1 of brightness times the weight 8; float32 images.
    np.testing.assert_allclose(clean, [0.4, 3.2, -0.8], atol=1e-6)
    np.testing.assert_array_equal(attacked.margin, clean)
    assert answers.tolist() == [0, 0, 2]
    _, attacked, answers = plots.attack_at(FLIPS, IMAGES, 16)
    # Both brightnesses move by 16/255 against the margin: exact for a linear model.
    np.testing.assert_allclose(attacked.margin, clean - 2 * 8 * 16 / 255, atol=1e-5)
    assert answers.tolist() == [1, 0, 2]


def test_radius_panel_shows_the_most_decided_images_that_flip():
    clean = torch.tensor([1.0, 5.0, 3.0, -1.0, 4.0])
    attacked = RobustMargin(
        torch.tensor([-1.0, -2.0, -3.0, -4.0, 1.0]), torch.linspace(0, 1, 20).reshape(5, 1, 2, 2)
    )
    _, axes = plots.figure(5)
    plots.radius_panel(axes[:3], clean, attacked, torch.tensor([2, 1, 0, 2, 0]), CLASSES, 8)
    assert axes[0].get_title() == "ε = 8/255: 3 of 4 flip"
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["clean", "attacked"]
    titles = ["m 5.0 → -2.0\nnow “shirt”", "m 3.0 → -3.0\nnow “coat”"]
    assert [ax.get_title() for ax in axes[1:3]] == titles
    for ax, index in zip(axes[1:3], (1, 2), strict=True):
        np.testing.assert_array_equal(
            ax.images[0].get_array(), attacked.adversarial_inputs[index, 0]
        )
        assert ax.images[0].get_clim() == (0, 1) and not ax.axison
    plots.radius_panel(axes[3:], clean, RobustMargin(clean, attacked.adversarial_inputs),
                       torch.zeros(5).long(), CLASSES, 0)  # fmt: skip
    assert not axes[4].images and not axes[4].axison  # nothing flips: an empty place


def test_epsilon_grid_has_a_column_per_radius():
    fig = plots.epsilon_grid(FLIPS, IMAGES, CLASSES, (0, 16))
    titles = [ax.get_title() for ax in fig.axes]
    assert titles[:2] == ["ε = 0/255: 0 of 2 flip", "ε = 16/255: 1 of 2 flip"]
    assert titles[2] == "" and titles[3].endswith("now “shirt”")
    assert [ax.get_legend() is not None for ax in fig.axes[:2]] == [True, False]


def test_two_divergences_are_those_of_two_classes():
    margins = np.array([-2.0, 0.0, 1.5])
    ax = plots.two_divergences(1.5, margins)
    p, q = (torch.sigmoid(torch.tensor(m, dtype=torch.float64)) for m in (1.5, margins))
    a, b = (torch.distributions.Bernoulli(v) for v in (p, q))
    for (x, y), wanted in zip(
        (line.get_data() for line in ax.lines[:2]),
        (torch.distributions.kl_divergence(a, b), torch.distributions.kl_divergence(b, a)),
        strict=True,
    ):
        np.testing.assert_array_equal(x, margins)
        np.testing.assert_allclose(y, wanted, atol=1e-12)  # float64, twice written down
    assert [line.get_color() for line in ax.lines[:2]] == [plots.MARGIN, plots.IDEAL]
    assert "the paper's" in ax.lines[0].get_label() and ax.get_ylim()[0] == 0


# --- curvature


def test_spectrum_runs_from_the_largest_and_shows_both_signs():
    ax = plots.spectrum(
        {"Lanczos": torch.tensor([-1.0, 0.0, 4.0]), "dense": torch.tensor([2.0, 3.0])}
    )
    np.testing.assert_array_equal(lines(ax, color=plots.CURVATURE), [[[1, 2, 3], [4, 0, -1]]])
    np.testing.assert_array_equal(lines(ax, color=plots.WRONG), [[[1, 2], [3, 2]]])
    assert ax.get_yscale() == "symlog" and list(legend(ax)) == ["Lanczos", "dense"]


def test_float32_error_is_drawn_beside_the_rounding_of_one_number():
    ax = plots.float32_error([1.0, 5.0], {"naive": [1e-6, 1e-3], "shifted": [1e-7, 2e-7]})
    np.testing.assert_array_equal(lines(ax, color=plots.WRONG), [[[1, 5], [1e-6, 1e-3]]])
    np.testing.assert_array_equal(lines(ax, color=plots.CURVATURE), [[[1, 5], [1e-7, 2e-7]]])
    (roundoff,) = lines(ax, color=plots.IDEAL)
    assert (roundoff[1] == np.finfo(np.float32).eps / 2).all() and ax.get_yscale() == "log"
    assert list(legend(ax)) == ["naive", "shifted", "rounding of one number"]


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_edge_of_stability_is_two_over_the_learning_rate(n_seeds):
    series = [np.array([1.0, 9.0, 11.0]) + seed for seed in range(n_seeds)]
    ax = plots.edge_of_stability(STEPS, series if n_seeds > 1 else series[0], 0.2)
    np.testing.assert_array_equal(lines(ax, color=plots.CURVATURE), [[STEPS, s] for s in series])
    (edge,) = lines(ax, color=plots.BOUND)
    assert (edge[1] == 10).all() and words(ax) == ["2/η = 10"] and ax.texts[0].xy == (20, 10)
    assert ax.get_ylim()[0] == 0


def test_against_margin_scatters_on_a_logarithmic_axis():
    ax = plots.against_margin(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 8.0]), "λ of one image")
    np.testing.assert_array_equal(dots(ax, plots.CURVATURE), [[1, 0.5], [-2, 8]])
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "λ of one image"


# --- bounds


@pytest.mark.parametrize("split", ["train", "test"])
def test_ladder_draws_every_rung_between_its_neighbours(split):
    record = history(**{
        f"{s}_log_{rung}": (height + np.arange(-4, -1) + 20 * (s == "test")) * NATS_PER_DECADE
        for s in ("train", "test") for height, rung in enumerate(plots.RUNGS)
    })  # fmt: skip
    ax = plots.ladder(record, split)
    start = -4 + 20 * (split == "test")
    decades = [start + height + np.arange(3) for height in range(len(plots.RUNGS))]
    found = [line.get_data() for line in ax.lines]
    np.testing.assert_allclose(found, [[STEPS, d] for d in decades], atol=1e-12)
    colors = [plots.BOUND] * 4 + [plots.CURVATURE] + [plots.BOUND] * 5 + [plots.IDEAL]
    assert [line.get_color() for line in ax.lines] == colors
    assert ax.lines[4].get_linewidth() > 2 and ax.lines[-1].get_linestyle() == "--"
    for (_, low, high), (below, above) in zip(bands(ax), pairwise(decades), strict=True):
        np.testing.assert_allclose([low, high], [below, above], atol=1e-12)
    alphas = [band.get_alpha() for band in ax.collections]
    # Ever paler away from the curvature, on both sides.
    assert alphas[:4] == sorted(alphas[:4]) and alphas[4:] == sorted(alphas[4:], reverse=True)
    assert alphas[3] == alphas[4] == max(alphas) > alphas[0]
    names = [*plots.RUNGS[:4], "$\\lambda_{\\max}$", *plots.RUNGS[5:-1], "u6, the paper's"]
    assert [text.strip() for text in words(ax)] == names
    # A decade apart, so that no label needs to move.
    assert [text.xy[1] for text in ax.texts] == pytest.approx([d[-1] for d in decades])
    assert {text.xy[0] for text in ax.texts} == {20}


def test_ladder_parts_labels_that_would_collide_and_skips_rungs_not_measured():
    ends = {"l1": 0.0, "u0": 1.0, "u1": 1.01, "u2": 1.02, "u6": 10.0}
    record = history(**{f"train_log_{r}": [v * NATS_PER_DECADE] * 3 for r, v in ends.items()})
    ax = plots.ladder(record)
    assert [y[0] for _, y in (line.get_data() for line in ax.lines)] == pytest.approx(
        [*ends.values()]
    )
    heights = [text.xy[1] for text in ax.texts]
    low, high = ax.get_ylim()
    gap = 0.04 * (high - low)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(heights))
    # The three that collide keep their mean; the others stay.
    assert [heights[0], heights[-1]] == pytest.approx([0.0, 10.0])
    assert heights[1:4] == pytest.approx([1.01 - gap, 1.01, 1.01 + gap])


@pytest.mark.parametrize(("split", "color"), [("train", plots.TRAIN), ("validation", plots.TEST)])
def test_sandwich_holds_ece_between_bounds_by_doubt_and_by_curvature(split, color):
    record = history(**{f"{split}_{name}": values for name, values in SANDWICH.items()})
    ax = plots.sandwich(record, split, n_classes=3)
    ((_, low, high),) = bands(ax)
    # u = 0.8, 0.05, 0.02 and err = 0.5, 0.1, 0; λ = 2, 4, 0.5 and 2 C_J² u = 4, 40, 2.
    np.testing.assert_allclose(low, [0.3, 0.05, 0.02])
    np.testing.assert_allclose(high, [1.3, 0.15, 0.02])
    upper, lower = lines(ax, color=plots.CURVATURE, linestyle="--")
    np.testing.assert_allclose(upper[1], [4.5, 8.1, 1.0])
    # λ/(2 C_J²) - err = 0.4 - 0.5 and 0.005 - 0.1 are negative.
    np.testing.assert_allclose(lower[1], [math.nan, math.nan, 0.005])
    np.testing.assert_allclose(lines(ax, color=color), [[STEPS, SANDWICH["ece"]]])
    (error,) = lines(ax, color=plots.WRONG)
    np.testing.assert_allclose(error[1], [0.5, 0.1, math.nan])  # no logarithm of zero
    assert ax.get_yscale() == "log" and ax.get_ylabel() == f"{split} ECE and its bounds"


def test_slack_bars_stack_what_each_rung_loses():
    ax = plots.slack_bars(TOTALS)
    pieces = bars(ax, plots.BOUND)
    for row, scale in enumerate((1, 2)):
        here = pieces[np.isclose(pieces[:, 1] + pieces[:, 3] / 2, row)]
        ends = np.stack([here[:, 0], here[:, 0] + here[:, 2]], axis=1)
        left = -scale * np.array([[0.5, 0], [0.51, 0.5], [1, 0.51], [2, 1]])
        steps = [0, 0.25, 0.75, 1.25, 2.0, 2.01, 4.0]
        np.testing.assert_allclose(np.sort(ends, 1), [*left, *scale * np.array([*pairwise(steps)])])
    # A piece too narrow for its name goes without; the widest bar is 12 decades wide.
    named = ["l1", "l3", "l4", "u2", "u3", "u4", "u6"]
    assert words(ax) == [*named, *named[:3], "u1", *named[3:]]
    assert [ax.texts[0].get_position(), ax.texts[6].get_position()] == [(-0.25, 0), (3.005, 0)]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["early", "late"]
    assert ax.yaxis_inverted()  # the first case on top
    np.testing.assert_array_equal(lines(ax, color=plots.CURVATURE)[0][0], [0, 0])


def test_logit_bounds_show_each_lemma_between_its_bounds():
    odds = math.exp(-2.0)
    miss = 2 * odds / (1 + 2 * odds)  # 1 - p_y
    probabilities = np.array([1 - miss, miss / 2, miss / 2])
    _, axes = plots.figure(2)
    assert plots.logit_bounds(torch.tensor([2.0, 0, 0]), 0, axes) is None
    chart = axes[1]
    # Float32 logits, but all is computed in float64 from them.
    np.testing.assert_allclose(bars(axes[0], plots.TEST)[:, 3], probabilities[:1])
    np.testing.assert_allclose(bars(axes[0], plots.IDEAL)[:, 3], probabilities[1:])
    assert axes[0].get_title() == "margin +2.0: right" and axes[0].get_ylim() == (0, 1)

    curvature = np.linalg.eigvalsh(np.diag(probabilities) - np.outer(probabilities, probabilities))
    values = np.stack(lines(chart, marker="o", color=plots.TEST))[..., 0]
    np.testing.assert_allclose(values, [[miss, 0], [miss, 1], [curvature[-1], 2]])
    trace = 1 - (probabilities**2).sum()
    bend_low = max(miss * (1 - miss), trace / 2)
    bend_high = min(2 * miss * (1 - miss), trace)
    sigma = odds / (1 + odds)
    # B.3⁺ is tight above, as the rivals are level.
    np.testing.assert_allclose(
        bars(chart, plots.BOUND)[:, [0, 2]],
        [[sigma, miss - sigma], [bend_low, bend_high - bend_low]],
    )
    papers = np.stack(lines(chart, color=plots.IDEAL, linestyle="--"))[:, 0, 0]
    np.testing.assert_allclose(papers, [miss, odds / (1 + 2 * odds), 2 * odds, 2 * miss])
    assert [tick.get_text().split()[0] for tick in chart.get_yticklabels()] == ["B.2", "B.3", "B.4"]
    assert chart.get_xscale() == "log"

    _, axes = plots.figure(2)
    plots.logit_bounds(torch.tensor([2.0, 0, 0]), 2, axes)
    assert axes[0].get_title() == "margin -2.0: wrong"
    np.testing.assert_allclose(bars(axes[0], plots.TEST)[:, 0] + 0.4, [2])


def test_logit_bounds_grid_has_a_column_per_case():
    cases = {"sure": torch.tensor([4.0, 0, 0]), "torn": torch.tensor([1.0, 3, 0])}
    fig = plots.logit_bounds_grid(cases, target=1)
    top, below = fig.axes[:2], fig.axes[2:]
    titles = [ax.get_title() for ax in top]
    assert titles == ["sure\nmargin -4.0: wrong", "torn\nmargin +2.0: right"]
    for logits, above, under in zip(cases.values(), top, below, strict=True):
        _, alone = plots.figure(2)
        plots.logit_bounds(logits, 1, alone)
        np.testing.assert_array_equal(bars(above, plots.TEST), bars(alone[0], plots.TEST))
        np.testing.assert_array_equal(bars(under, plots.BOUND), bars(alone[1], plots.BOUND))


# --- correlations


@pytest.mark.parametrize("published", [None, PUBLISHED])
def test_correlation_dots_stand_in_lanes_of_their_group(published):
    colors = {"train ECE": plots.TRAIN, "test ECE": plots.TEST}
    ax = plots.correlation_dots(DOTS, colors, published)
    lanes = 2 + (published is not None)
    for lane, (name, color) in enumerate(colors.items()):
        found = [line for line in lines(ax, color=color) if line.size]
        columns = [s for by_rate in DOTS[name].values() for s in by_rate.values()]
        assert [y.tolist() for _, y in found] == columns
        x = [x[0] for x, _ in found]
        left = np.array([0, 0, 1, 1]) - 0.4 + 0.8 * lane / lanes
        np.testing.assert_allclose(x, left + 0.8 / lanes * np.array([0.25, 0.75] * 2))
    if published is not None:
        (diamonds,) = lines(ax, color=plots.IDEAL, marker="D")
        np.testing.assert_allclose(diamonds, [[4 / 15, 19 / 15], [0.9, 0.8]])
        bar = segments(ax, plots.IDEAL)[:, :, 1]
        np.testing.assert_allclose(bar, [[0.85, 0.95], [0.7, 0.9]])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["SGD", "Muon"]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [*colors, "the paper, CIFAR-10"][:lanes]
    assert ax.get_ylim() == (-1.08, 1.08)


@pytest.mark.parametrize(("split", "color"), [("train", plots.TRAIN), ("test", plots.TEST)])
def test_doubt_and_error_shade_their_difference(split, color):
    record = history(**{f"{split}_{name}": values for name, values in SANDWICH.items()})
    ax = plots.doubt_and_error(record, split)
    doubt, error = [0.8, 0.05, 0.02], [0.5, 0.1, 0.0]
    ((_, low, high),) = bands(ax)
    np.testing.assert_allclose([low, high], [np.minimum(doubt, error), np.maximum(doubt, error)])
    assert same_color(ax.collections[0].get_facecolor()[0][:3], plots.BOUND)
    np.testing.assert_allclose(lines(ax, color=color, linestyle="--"), [[STEPS, doubt]], atol=1e-12)
    np.testing.assert_allclose(lines(ax, color=plots.WRONG), [[STEPS, error]], atol=1e-12)
    np.testing.assert_allclose(lines(ax, color=color, linestyle="-"), [[STEPS, SANDWICH["ece"]]])
    assert ax.get_xscale() == "symlog" and ax.get_xlim()[0] == 0 and ax.get_ylim() == (0, 1)


def test_window_panel_marks_the_probes_used_and_keeps_its_axes():
    values = {"train_ece": 0.875, "test_ece": -0.5}
    limits = set()
    for used in ([0, 10, 20], [0, 20]):
        _, (above, below) = plots.figure(2)
        assert plots.window_panel((above, below), RUN, used, values) is None
        chosen = np.isin(STEPS, used)
        columns = (
            ("sharpness", plots.CURVATURE),
            ("train_ece", plots.TRAIN),
            ("test_ece", plots.TEST),
        )
        for name, color in columns:
            share = RUN.column(name) / RUN.column(name).max()
            np.testing.assert_allclose(lines(above, color=color, marker="None"), [[STEPS, share]])
            found = lines(above, color=color, marker="o")
            np.testing.assert_allclose(found, [[STEPS[chosen], share[chosen]]])
        for name, color in columns[1:]:
            wanted = [RUN.column("sharpness")[chosen], RUN.column(name)[chosen]]
            np.testing.assert_array_equal(lines(below, color=color, marker="o"), [wanted])
        assert legend(below) == {
            "train ECE: r = +0.88": plots.TRAIN.lower(), "test ECE: r = -0.50": plots.TEST.lower(),
        }  # fmt: skip
        assert above.texts[0].xy[0] == 10  # where the sharpness is largest
        limits.add((*below.get_xlim(), *below.get_ylim()))
    assert len(limits) == 1 and limits.pop() == pytest.approx((0, 8.4, 0, 0.5))


def test_window_grid_has_a_column_per_choice():
    fig = plots.window_grid(RUN, WINDOWS)
    assert [ax.get_title() for ax in fig.axes] == ["all", "early", "", ""]
    assert [list(legend(ax)) for ax in fig.axes[2:]] == [
        ["train ECE: r = +0.90"], ["train ECE: r = +1.00"],
    ]  # fmt: skip
    sizes = [lines(ax, color=plots.TRAIN, marker="o")[0].shape[1] for ax in fig.axes]
    assert sizes == [3, 2, 3, 2]


def test_pairing_matrix_names_its_blocks():
    matrix = np.linspace(-1, 1, 9).reshape(3, 3)
    ax = plots.pairing_matrix(matrix, ["SGD", "SGD", "Muon"])
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), matrix)
    red, _, blue = image.to_rgba(np.array([1.0, 0.0, -1.0]))[:, :3]
    assert image.get_clim() == (-1, 1) and red[0] > red[2] and blue[2] > blue[0]
    for axis in (ax.xaxis, ax.yaxis):
        assert axis.get_ticklocs().tolist() == [0.5, 2]
        assert [tick.get_text() for tick in axis.get_ticklabels()] == ["SGD", "Muon"]
    across, down = lines(ax, color=plots.WRONG)
    assert set(across[1]) == set(down[0]) == {1.5}


def test_across_runs_tells_optimizers_by_shape_and_splits_by_colour():
    sharpness = {"SGD": [1.0, 2.0], "Muon": [3.0]}
    errors = {
        "train ECE": {"SGD": [0.1, 0.2], "Muon": [0.3]},
        "test ECE": {"Muon": [0.5], "SGD": [0.4, 0.6]},  # in another order
    }
    ax = plots.across_runs(sharpness, errors)
    handles = dict(zip(
        (text.get_text() for text in ax.get_legend().get_texts()), ax.get_legend().legend_handles,
        strict=True,
    ))  # fmt: skip
    assert list(handles) == ["SGD", "Muon", "train ECE", "test ECE"]
    for name, color in (("train ECE", plots.TRAIN), ("test ECE", plots.TEST)):
        assert same_color(handles[name].get_facecolor()[:3], color)
        for optimizer, values in errors[name].items():
            found = lines(ax, color=color, marker=handles[optimizer].get_marker())
            np.testing.assert_array_equal(found, [[sharpness[optimizer], values]])
    assert handles["SGD"].get_marker() != handles["Muon"].get_marker()
    assert ax.get_xscale() == ax.get_yscale() == "log"


# --- directions


def test_sam_step_draws_the_climb_and_both_descents():
    curvatures, start, rho = np.array([9.0, 1.0]), np.array([1.0, 4.0]), 0.5
    ax = plots.sam_step(tuple(curvatures), tuple(start), rho)
    heads = {text.get_text(): np.array(text.xy) for text in ax.texts if text.get_text()}
    assert heads.keys() == {"SAM", "gradient descent", "climb ρ"}
    climb = heads["climb ρ"] - start
    gradient = curvatures * start
    np.testing.assert_allclose(climb, rho * gradient / np.linalg.norm(gradient))
    # One learning rate for both: the moves are minus rate times the two gradients.
    rates = [
        (start - heads[name]) / (curvatures * point)
        for name, point in (("gradient descent", start), ("SAM", start + climb))
    ]
    np.testing.assert_allclose(rates, np.full((2, 2), rates[0][0]))
    assert rates[0][0] > 0
    arrows = [t for t in ax.texts if not t.get_text()]
    assert sorted(tuple(a.xy) for a in arrows) == sorted(map(tuple, heads.values()))
    assert all(np.array_equal(a.get_position(), start) for a in arrows)
    np.testing.assert_array_equal(lines(ax, color=plots.WRONG), [[[1], [4]], [[0], [0]]])
    assert ax.get_aspect() == 1  # angles are seen as they are


def test_amplification_draws_the_measured_over_the_predicted():
    eigenvalues = torch.tensor([1.0, 2.0])
    ax = plots.amplification(eigenvalues, torch.tensor([1.5, 2.25]), torch.tensor([1.5, 2.0]))
    np.testing.assert_array_equal(lines(ax, color=plots.BOUND), [[[1, 2], [1.5, 2]]])
    np.testing.assert_array_equal(lines(ax, color=plots.CURVATURE), [[[1, 2], [1.5, 2.25]]])
    assert (lines(ax, color=plots.IDEAL)[0][1] == 1).all()  # the gradient's own


def test_components_are_sizes():
    ax = plots.components(torch.tensor([-3.0, 1.0]), torch.tensor([2.0, -1.5]), ("SGD", "Muon"))
    found = bars(ax, plots.IDEAL)
    np.testing.assert_allclose(found[:, [0, 3]], [[0.6, 3], [1.6, 1]])
    np.testing.assert_array_equal(lines(ax, color=plots.CURVATURE), [[[1, 2], [2, 1.5]]])
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"SGD", "Muon"}


def test_shares_are_written_beside_their_bars():
    ax = plots.shares({"SGD": 0.25, "Muon": 0.5}, "share of the update")
    np.testing.assert_allclose(bars(ax, plots.CURVATURE)[:, 2], [0.25, 0.5])
    assert [(t.get_text(), t.xy) for t in ax.texts] == [(" 25%", (0.25, 0)), (" 50%", (0.5, 1))]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["SGD", "Muon"]
    assert ax.yaxis_inverted() and ax.get_xlabel() == "share of the update"


def test_every_run_draws_each_run_and_the_median():
    values = {
        "SGD": np.array([[1.0, 2.0], [3.0, np.nan], [7.0, np.inf]]),
        "Muon": np.array([[5.0, 6.0]]),
        "SAM": np.array([[np.inf, np.inf], [1.0, np.inf]]),
    }
    ax = plots.every_run(values, "step", plots.TRAIN)
    found = [(x[0], y.tolist()) for x, y in lines(ax, color=plots.TRAIN, marker="o") if x.size]
    wanted = [(-0.64 / 3, [1, 2]), (0, [3]), (0.64 / 3, [7]), (1, [5, 6]), (2.16, [1])]
    assert [y for _, y in found] == [y for _, y in wanted]
    assert [x for x, _ in found] == pytest.approx([x for x, _ in wanted])
    triangles = [line for line in ax.lines if line.get_marker() == "^"]
    assert [float(t.get_xdata()[0]) for t in triangles] == pytest.approx([0.64 / 3, 1.84, 2.16])
    # NaN does not count, infinity does; where the median is infinite there is none to draw.
    median = segments(ax, plots.WRONG)
    np.testing.assert_allclose(median, [[[-0.38, 3], [0.38, 3]], [[0.62, 5.5], [1.38, 5.5]]])
    shades = [line.get_alpha() for line in ax.lines if line.get_marker() == "o"]
    assert shades[0] < shades[1] < shades[2] == shades[3] == 1  # the darker, the larger the rate
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list(values)
    assert ax.get_yscale() == "linear"
    assert plots.every_run(values, "step", plots.TRAIN, log=True).get_yscale() == "log"
