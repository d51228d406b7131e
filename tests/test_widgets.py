"""Explorers: each control changes the picture and its words, and takes the change back."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from calibcourse import plots, widgets
from calibcourse.data import Split, shifted
from calibcourse.data.shift import STRENGTHS
from calibcourse.history import History
from calibcourse.reproduce import GRID, Run, Sweep, TrajectoryConfig, plan

# A tensor where matplotlib wants an array works today and warns.
pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


@pytest.fixture(autouse=True, scope="module")
def _sketches():
    """Small pictures without a layout engine, which takes most of a picture's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plots.STYLE, "figure.dpi", 50)
        patch.setitem(plots.STYLE, "figure.constrained_layout.use", False)
        yield


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def made_up_run(config, height: float = 1.0) -> Run:
    """A run whose every curve is its own."""
    steps = getattr(config, "probe_steps", [0, 4, 12, 24])
    rows = [
        {
            "step": step,
            "sharpness": height * (1 + step) / (2 + (step - 9) ** 2),
            "train_loss": 2.3 / (1 + step * height),
            "train_ece": 0.1 * height / (1 + step),
            "test_ece": 0.1 * height / (1 + abs(step - 4)),
            "test_accuracy": 0.5 + 0.1 * height,
            "validation_ece": 0.1 * height / (2 + step),
            "validation_loss": height + (step - 12) ** 2,
        }
        for step in steps
    ]
    return Run(config, History(rows), {})


TINY = TrajectoryConfig(
    dataset="fashion_mnist_small",
    optimizer="gd",
    lr=0.1,
    steps=24,
    batch_size=None,
    train_samples=40,
    held_out_samples=30,
    even_probes=13,
    log_probes=5,
)


def trajectories(optimizers: dict[str, tuple[float, ...]]) -> Sweep:
    """Runs of optimizers at their learning rates, two seeds each."""
    runs = [
        made_up_run(replace(TINY, optimizer=name, lr=rate, seed=seed), 1 + place + 2 * rate + seed)
        for place, (name, rates) in enumerate(optimizers.items())
        for rate in rates
        for seed in (0, 1)
    ]
    return Sweep(tuple(runs), "made up")


def grid() -> Sweep:
    """One run for each cell of CalMO's weights."""
    configs = plan("grid", seeds=[0])
    return Sweep(tuple(made_up_run(c, 1 + i / 8) for i, c in enumerate(configs)), "made up")


def flips() -> nn.Module:
    """A linear model of three classes that some gray levels turn."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(8 * torch.eye(3, 4))
    return model


IMAGES = Split(
    torch.tensor([[0.55, 0.5, 0, 0], [0.9, 0.5, 0, 0], [0, 0.4, 0.5, 0]]).reshape(3, 1, 2, 2),
    torch.tensor([0, 0, 1]),
)
LOGITS = torch.tensor([[2.0, 0, 0], [0.5, 1, 0], [0, 0, 3], [1, 0, 0.5]])
OPTIMIZERS = {"sgd": (0.1, 0.2), "muon": (0.01, 0.02), "adamw": (0.001, 0.002)}

# name -> how to build it; then for every control another value and what the words then say of it,
# after what they say at first.
EXPLORERS = {
    "temperature_explorer": (
        lambda: widgets.temperature_explorer(LOGITS, torch.tensor([0, 0, 2, 1])),
        {"temperature": ("temperature 1.00", 2.5, "temperature 2.50"),
         "n_bins": ("15 bins", 3, "3 bins")},
    ),
    "epsilon_explorer": (
        lambda: widgets.epsilon_explorer(flips(), IMAGES, ("coat", "shirt", "bag")),
        {"radius": ("radius 4/255", 16, "radius 16/255")},
    ),
    "learning_rate_explorer": (
        lambda: widgets.learning_rate_explorer(trajectories({"gd": (0.4, 0.1, 0.2)})),
        {"rate": ("learning rate 0.2", 0.4, "learning rate 0.4")},
    ),
    "logits_explorer": (
        lambda: widgets.logits_explorer(4),
        {"label": ("3 for the label", -1.5, "-1.5 for the label"),
         "rival": ("1 for a rival", 2.5, "2.5 for a rival"),
         "others": ("-2 for all others", 0.0, "0 for all others")},
    ),
    "window_explorer": (
        lambda: widgets.window_explorer(trajectories(OPTIMIZERS)),
        {"optimizer": ("errors of SGD,", "Muon", "errors of Muon,"),
         "rank": ("learning rate 2 of 2", 1, "learning rate 1 of 2"),
         "percent": ("first 100 %", 50, "first 50 %"),
         "spacing": ("even spacing", "log", "log spacing")},
    ),
    "matched_loss_explorer": (
        lambda: widgets.matched_loss_explorer(trajectories(OPTIMIZERS)),
        {"label": ("of Muon at learning rate 0.01", "AdamW", "of AdamW at learning rate 0.001"),
         "rate": ("learning rate 0.01", 0.02, "learning rate 0.02"),
         "quantity": ("Train ECE", "Sharpness", "Sharpness")},
    ),
    "weights_explorer": (
        lambda: widgets.weights_explorer(grid()),
        {"robust_weight": ("robust weight 0.5", 2.0, "robust weight 2 "),
         "smooth_weight": ("smoothness weight 0.01", 0.0, "smoothness weight 0,")},
    ),
    "shift_explorer": (
        lambda: widgets.shift_explorer(flips(), IMAGES),
        {"kind": ("under rotation of strength 20", "contrast", "under contrast of strength 0.4"),
         "grade": ("strength 20,", 4, "strength 45,")},
    ),
    "case_explorer": (
        lambda: widgets.case_explorer(
            {"case_a": LOGITS, "case_b": 2 * LOGITS}, torch.tensor([0, 0, 2, 1]), "abc"
        ),
        {"case": ("of case_a", "case_b", "of case_b"),
         "temperature": ("temperature 1.00", 2.5, "temperature 2.50")},
    ),
}  # fmt: skip

CASES = [(name, control) for name, (_, changes) in EXPLORERS.items() for control in changes]


def picture(explorer: widgets.Explorer) -> tuple[list[bytes], str]:
    """PNGs, left to right, and the words for them that an explorer shows now."""
    html = explorer.children[-1]
    assert isinstance(html, ipywidgets.HTML)
    image = (
        r'<img class="calibcourse-\w+" src="data:image/png;base64,([^"]+)" alt="" style="[^"]+">'
    )
    found = re.fullmatch(
        rf'<div role="img" aria-label="([^"<>]+)" style="[^"]+">((?:{image})+)</div>', html.value
    )
    panels = re.findall(image, found[2])
    return [base64.b64decode(panel, validate=True) for panel in panels], unescape(found[1])


@pytest.fixture(scope="module")
def explorers() -> dict[str, widgets.Explorer]:
    """Each built once; a test leaves the controls as it found them."""
    return {name: build() for name, (build, _) in EXPLORERS.items()}


def test_every_explorer_is_tested_here():
    assert {name for name in dir(widgets) if name.endswith("_explorer")} == EXPLORERS.keys()


@pytest.mark.parametrize(("name", "control"), CASES)
def test_a_control_changes_picture_and_words_and_changes_them_back(explorers, name, control):
    explorer, (before, value, after) = explorers[name], EXPLORERS[name][1][control]
    first, words = picture(explorer)
    assert before in words and after not in words
    was = explorer.controls[control].value
    explorer.controls[control].value = value
    changed, new_words = picture(explorer)
    assert changed != first and after in new_words and before not in new_words
    explorer.controls[control].value = was
    assert picture(explorer) == (first, words)


@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_shows_a_picture_under_its_controls(explorers, name):
    explorer, changes = explorers[name], EXPLORERS[name][1]
    assert explorer.controls.keys() == changes.keys()
    assert explorer.children[:-1] == tuple(explorer.controls.values())
    for panel in picture(explorer)[0]:
        image = Image.open(io.BytesIO(panel))
        # Drawn at half size: a wider panel would be shrunk past reading in a narrow window.
        assert image.format == "PNG" and 0.9 * 4.6 * 50 <= image.width <= 6.4 * 50
        assert f"max-width: min(100%, {image.width}px)" in explorer.children[-1].value
    assert all(control.description for control in explorer.controls.values())
    assert plt.get_fignums() == []  # else the notebook would show them once more


@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_is_the_same_in_every_run(explorers, name):
    again = EXPLORERS[name][0]()
    assert repr(again) == repr(explorers[name])
    assert repr(again) == "Explorer with " + " and ".join(
        control.description for control in again.controls.values()
    )
    # ipywidgets cuts what it writes into a notebook after 110 characters.
    assert len(repr(again)) <= 110
    assert picture(again) == picture(explorers[name])


# What ipywidgets 7.7 has too, which is Colab's: the front end there knows no newer model.
OLD_MODELS = {
    "VBoxModel", "HTMLModel", "IntSliderModel", "FloatSliderModel", "SelectionSliderModel",
}  # fmt: skip


@pytest.mark.parametrize("name", EXPLORERS)
def test_controls_are_old_core_widgets_that_report_when_released(explorers, name):
    explorer = explorers[name]
    for widget in (explorer, *explorer.children):
        assert widget._model_name in OLD_MODELS
        assert widget._model_module == "@jupyter-widgets/controls"
    for control in explorer.controls.values():
        # A slow machine would lag behind a slider that reports while it is dragged.
        assert control.continuous_update is False


def test_explorer_draws_by_keyword_and_escapes_its_words():
    drawn = []

    def draw(**values) -> list[Figure]:
        drawn.append(values)
        return [plots.figure(1, 2.0 + values["width"])[0], plots.figure(1)[0]]

    explorer = widgets.Explorer(
        draw, lambda width, name: f'<{name}> & "{width}"',
        width=widgets.slider("width", 1, 0, 3), name=ipywidgets.Text("a", description="name"),
    )  # fmt: skip
    assert drawn == [{"width": 1, "name": "a"}]
    assert picture(explorer)[1] == '<a> & "1"'
    explorer.controls["width"].value = 2
    explorer.controls["name"].value = "b"
    assert drawn[1:] == [{"width": 2, "name": "a"}, {"width": 2, "name": "b"}]
    (left, _), words = picture(explorer)
    assert Image.open(io.BytesIO(left)).width == 200 and words == '<b> & "2"'
    assert repr(explorer) == "Explorer with width and name"


@pytest.mark.parametrize(
    ("value", "kind"), [(2, ipywidgets.IntSlider), (2.0, ipywidgets.FloatSlider)]
)
def test_slider_is_of_the_kind_of_its_value(value, kind):
    made = widgets.slider("size", value, 1, 5, step=2)
    assert type(made) is kind and (made.value, made.min, made.max, made.step) == (value, 1, 5, 2)
    assert made.description == "size" and made.continuous_update is False


# --- what each explorer shows is what its controls say


@pytest.fixture
def drawn_with(monkeypatch) -> Callable[[str], list[tuple]]:
    """A function that puts a record of its arguments in the place of a plot function."""
    monkeypatch.setattr(plots, "png_bytes", lambda fig: plt.close(fig) or b"")

    def record(function: str, result=None, module=plots) -> list[tuple]:
        calls = []
        monkeypatch.setattr(module, function, lambda *args, **_: calls.append(args) or result)
        return calls

    return record


@pytest.mark.parametrize(
    ("name", "module", "function", "place"),
    [
        ("temperature_explorer", plots, "tempered_reliability", slice(2, 4)),
        ("learning_rate_explorer", widgets, "recorded_sharpness", slice(1, 2)),
        ("weights_explorer", widgets, "weights_panel", slice(1, 3)),
    ],
)
def test_values_reach_the_plot_and_not_the_title_only(drawn_with, name, module, function, place):
    calls = drawn_with(function, module=module)
    build, changes = EXPLORERS[name]
    explorer = build()
    for control, (_, value, _) in changes.items():
        explorer.controls[control].value = value
    assert calls[-1][place] == tuple(value for _, value, _ in changes.values())


def test_logits_explorer_draws_three_levels(drawn_with):
    calls = drawn_with("logit_bounds")
    explorer = widgets.logits_explorer(5)
    explorer.controls["others"].value = 0.5
    assert [args[0].tolist() for args in calls] == [[3, 1, -2, -2, -2], [3, 1, 0.5, 0.5, 0.5]]
    assert all(args[1] == 0 for args in calls)


def test_learning_rate_explorer_offers_the_recorded_rates_in_order(explorers):
    assert explorers["learning_rate_explorer"].controls["rate"].options == (0.1, 0.2, 0.4)


def test_window_explorer_correlates_the_probes_it_marks(drawn_with):
    calls = drawn_with("window_panel")
    sweep = trajectories(OPTIMIZERS)
    explorer = widgets.window_explorer(sweep)
    assert explorer.controls["optimizer"].options == ("SGD", "Muon", "AdamW")
    for control, value in (("rank", 1), ("optimizer", "Muon"), ("percent", 50), ("spacing", "log")):
        explorer.controls[control].value = value
    _, history, used, values = calls[-1]
    (run,) = sweep.select(label="Muon", lr=0.01, seed=0).runs
    # Five logarithmic probes of 24 steps are 0, 1, 24^(1/3), 24^(2/3) and 24.
    assert history is run.history and used == [0, 1, 3, 8]
    rows = [row for row in history.rows if row["step"] in used]
    for column, value in values.items():
        pair = torch.tensor([[row["sharpness"], row[column]] for row in rows], dtype=torch.float64)
        # Two float64 formulas of the same correlation.
        assert value == pytest.approx(torch.corrcoef(pair.T)[0, 1].item(), abs=1e-12)
    assert values.keys() == {"train_ece", "test_ece"}


def test_matched_loss_explorer_offers_only_rates_that_were_run(drawn_with):
    calls = drawn_with("matched_loss_plane", module=widgets)
    explorer = widgets.matched_loss_explorer(trajectories(OPTIMIZERS))
    label, rate = explorer.controls["label"], explorer.controls["rate"]
    assert label.options == ("Muon", "AdamW")  # SGD is what they are compared with
    rate.value = 0.02
    label.value = "AdamW"
    assert rate.options == (0.001, 0.002) and rate.value == 0.001
    assert calls[-1][1:] == ("AdamW", 0.001, "train_ece")
    run = {"Muon": (0.01, 0.02), "AdamW": (0.001, 0.002)}
    assert all(args[2] in run[args[1]] for args in calls)  # nor was another drawn on the way


def test_epsilon_explorer_attacks_at_the_radius_of_the_slider(drawn_with):
    clean, attacked, answers = plots.attack_at(flips(), IMAGES, 8)
    calls = drawn_with("attack_at", (clean, attacked, answers))
    explorer = widgets.epsilon_explorer(flips(), IMAGES, ("coat", "shirt", "bag"))
    explorer.controls["radius"].value = 0
    assert [args[2] for args in calls] == [4, 0]


def test_shift_explorer_shifts_each_kind_once_and_shows_its_logits(drawn_with):
    calls = drawn_with("shift_panel")
    explorer = widgets.shift_explorer(flips(), IMAGES)
    explorer.controls["grade"].value = 5
    explorer.controls["kind"].value = "noise"
    (_, turned, target, *first), (_, again, _, *second), (_, noisy, _, *third) = calls
    assert (first, second, third) == (["rotation", 2], ["rotation", 5], ["noise", 5])
    assert again is turned and target is IMAGES.target
    with torch.no_grad():
        expected = flips()(shifted(IMAGES.inputs, "noise", STRENGTHS["noise"][-1]))
    assert torch.equal(noisy[5], expected) and len(noisy) == 6


def test_weights_explorer_offers_the_cells_of_the_grid(explorers):
    controls = explorers["weights_explorer"].controls
    assert {name: control.options for name, control in controls.items()} == GRID
