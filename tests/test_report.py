"""Reports and figures of a sweep, read back: what stands in the text, what is drawn where."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from PIL import Image

from calibcourse.history import History
from calibcourse.plots import CURVATURE, TRAIN
from calibcourse.reproduce import (
    TRAJECTORIES,
    Run,
    Sweep,
    TrajectoryConfig,
    plan,
    table_1_text,
    trajectories_figure,
)
from calibcourse.reproduce.figures import QUANTITIES
from calibcourse.reproduce.report import made_by, report_paths, write_report

CONFIG = TrajectoryConfig(
    dataset="fashion_mnist_small", optimizer="sgd", lr=0.1, steps=8, batch_size=10,
    train_samples=20, held_out_samples=20, even_probes=5, log_probes=2,
)  # fmt: skip
STEPS = [0, 1, 2, 4, 6, 8]
MACHINE = {"processor": "a machine", "torch": "2.0", "date": "2026-01-02"}


def run(height: float, lr: float = 0.1, seed: int = 0, length: int = 6, **provenance) -> Run:
    """A run whose columns are flat at this height, a few of its probes."""
    rows = [{"step": step} | dict.fromkeys(QUANTITIES, height) for step in STEPS[:length]]
    made = {"seconds": 600.0} | MACHINE | provenance
    return Run(replace(CONFIG, lr=lr, seed=seed), History(rows), made)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


# --- trajectories


def test_the_line_is_the_mean_over_seeds_and_the_band_their_range():
    sweep = Sweep((run(1.0, seed=0), run(2.0, seed=1), run(6.0, seed=2)))
    fig = trajectories_figure(sweep, ["sharpness"])
    (ax,) = fig.axes
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), STEPS[1:])  # step 0 has no logarithm
    np.testing.assert_allclose(line.get_ydata(), 3.0)
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == 1.0 and corners[:, 1].max() == 6.0
    assert (corners[:, 0].min(), corners[:, 0].max()) == (1, 8)


def test_the_darker_the_larger_the_learning_rate():
    rates = (0.4, 0.1, 0.2)
    fig = trajectories_figure(Sweep(tuple(run(1.0, lr=lr) for lr in rates)), ["sharpness"])
    (ax,) = fig.axes
    shades = {line.get_label(): line.get_alpha() for line in ax.lines}
    assert shades["0.1"] < shades["0.2"] < shades["0.4"] == 1
    assert [band.get_alpha() for band in ax.collections] == sorted(
        band.get_alpha() for band in ax.collections
    )
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["0.1", "0.2", "0.4"]


def test_both_axes_are_logarithmic_and_every_quantity_has_its_colour():
    adamw = run(1.0)
    adamw = replace(adamw, config=replace(adamw.config, optimizer="adamw"))
    fig = trajectories_figure(Sweep((run(1.0), adamw)), ["sharpness", "train_ece"])
    assert len(fig.axes) == 4
    for ax, color in zip(fig.axes, (CURVATURE, CURVATURE, TRAIN, TRAIN), strict=True):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert to_rgb(ax.lines[0].get_color()) == to_rgb(color)
    assert [ax.get_title() for ax in fig.axes[:2]] == ["SGD", "AdamW"]
    assert fig.axes[2].get_ylabel() == "train ECE"


def test_a_mean_goes_as_far_as_all_of_its_seeds():
    sweep = Sweep((run(1.0, seed=0), run(3.0, seed=1, length=4)))
    (line,) = trajectories_figure(sweep, ["sharpness"]).axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), STEPS[1:4])
    np.testing.assert_allclose(line.get_ydata(), 2.0)


def test_seeds_are_averaged_at_steps_that_all_of_them_have():
    other = run(3.0, seed=1)
    rows = [row | {"step": 2 * row["step"]} for row in other.history.rows]
    sweep = Sweep((run(1.0), replace(other, history=History(rows))))
    (line,) = trajectories_figure(sweep, ["sharpness"]).axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), [2, 4, 8])


# --- numbers in words


def test_computing_time_is_told_in_hours():
    nine = tuple(run(1.0, seed=seed, seconds=1000.0) for seed in range(9))
    assert "9 runs, 2.5 hours of computing on a machine" in made_by(Sweep(nine, "reproduce x"))


def test_every_machine_version_and_day_is_named_once():
    sweep = Sweep(
        (
            run(1.0, seed=0),
            run(1.0, seed=1, processor="another", date="2026-01-03"),
            run(1.0, seed=2, torch="2.1"),
        )
    )
    assert "on a machine, another with torch 2.0, 2.1, 2026-01-02, 2026-01-03." in made_by(sweep)


def test_runs_that_diverged_are_named():
    bad = run(1.0, seed=1)
    bad = replace(bad, history=replace(bad.history, diverged_at=7))
    text = made_by(Sweep((run(1.0), bad)))
    assert f"- {bad.config.key} diverged at step 7.\n" in text and text.count("diverged") == 1


# --- what is written


def colors_of(png: bytes) -> tuple[tuple[int, int], np.ndarray]:
    """Size of a picture, and its pixels (N, 3) in [0, 1]."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return image.size, np.asarray(image).reshape(-1, 3) / 255


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_a_picture_is_written_that_shows_its_columns(tmp_path, name):
    optimizers = dict.fromkeys(config.optimizer for config in plan(name, seeds=[0]))
    runs = [
        Run(config, run(1.0 + 9 * config.lr).history, {"seconds": 1.0} | MACHINE)
        for config in plan(name, seeds=[0])
    ]
    sweep = Sweep(tuple(runs), f"reproduce {name}")
    paths = write_report(sweep, name, tmp_path)
    assert paths == report_paths(name, tmp_path) and all(path.is_file() for path in paths)
    (width, height), pixels = colors_of(paths[0].read_bytes())
    shown = TRAJECTORIES[name]
    # Inches of the figure, at its 110 dots an inch; the columns of panels are the labels.
    panels = len(sweep.labels)
    assert width == pytest.approx(110 * (2.4 * panels + 0.6), abs=2)
    assert height == pytest.approx(110 * (1.8 * len(shown.columns) + 0.5), abs=2)
    for color in {CURVATURE, TRAIN} if "train_ece" in shown.columns else {CURVATURE}:
        # The darkest line is drawn in the very colour; a palette moves it by a few of 256 steps.
        assert (np.abs(pixels - to_rgb(color)).max(1) < 0.05).sum() > 50
    text = paths[1].read_text(encoding="utf-8")
    assert text.startswith(f"# {name}: {shown.title}\n\n`calibcourse reproduce {name}`: ")
    assert ("correlation with sharpness" in text) == bool(set(optimizers) - {"bulk_sgd"})
    assert len(Sweep.load(paths[2])) == len(runs)


def test_what_is_no_figure_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"name must be one of .*figure1.*; got 'figure9'"):
        write_report(Sweep((run(1.0),)), "figure9", tmp_path)
    assert not list(tmp_path.iterdir())


def test_table_1_leaves_out_a_spread_that_cannot_be_told(tmp_path):
    rows = [{"step": s, **{c: float(s) for c in ("sharpness", "train_ece", "train_kce", "test_ece",
             "test_kce")}} for s in CONFIG.even_steps]  # fmt: skip
    text = table_1_text(Sweep((Run(CONFIG, History(rows), {}),)))
    assert "| train ECE, pearson | 1.00 |" in text and "nan" not in text
