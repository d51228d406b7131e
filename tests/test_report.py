"""Reports and figures of a sweep, read back: what stands in the text, what is drawn where."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from calibcourse.history import History
from calibcourse.plots import CURVATURE, TRAIN
from calibcourse.reproduce import (
    COMPARISONS,
    TRAJECTORIES,
    Run,
    Sweep,
    TrajectoryConfig,
    load_recorded,
    plan,
    report,
    table_1_text,
    trajectories_figure,
)
from calibcourse.reproduce.figures import QUANTITIES
from calibcourse.reproduce.methods_report import comparison_text
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
    runs = [run(height, seed=seed) for seed, height in enumerate((1.0, 2.0, 6.0))]
    for row in (row for run in runs for row in run.history.rows):
        row["sharpness"] *= row["step"]
    fig = trajectories_figure(Sweep(tuple(runs)), ["sharpness"])
    (ax,) = fig.axes
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), STEPS[1:])  # step 0 has no logarithm
    np.testing.assert_allclose(line.get_ydata(), np.multiply(3, STEPS[1:]))
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for step in STEPS[1:]:
        edges = corners[corners[:, 0] == step, 1]
        assert (edges.min(), edges.max()) == (step, 6 * step)
    assert (corners[:, 0].min(), corners[:, 0].max()) == (1, 8)
    np.testing.assert_array_equal(band.get_facecolor()[0][:3], to_rgb(line.get_color()))


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
    adamw = run(50.0)
    adamw = replace(adamw, config=replace(adamw.config, optimizer="adamw"))
    del adamw.history.rows[-1]["train_ece"]  # not measured at the last probe
    fig = trajectories_figure(Sweep((run(1.0), adamw)), ["sharpness", "train_ece"])
    for ax, color in zip(fig.axes, (CURVATURE, CURVATURE, TRAIN, TRAIN), strict=True):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert to_rgb(ax.lines[0].get_color()) == to_rgb(color)
        # One scale, so that optimizers can be compared at a glance, and one time for each.
        assert ax.get_ylim()[0] < 1 and ax.get_ylim()[1] > 50
        assert ax.get_xlim()[1] > 8
    assert [ax.get_title() for ax in fig.axes] == ["SGD", "AdamW", "", ""]
    labels = ["sharpness $\\lambda_{\\max}$", "", "train ECE", ""]
    assert [ax.get_ylabel() for ax in fig.axes] == labels
    assert [ax.get_xlabel() for ax in fig.axes] == ["", "", "training step", "training step"]
    boxes = [ax.get_legend() for ax in fig.axes]
    assert [box and box.get_title().get_text() for box in boxes] == ["learning rate"] * 2 + [
        None
    ] * 2


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


def test_how_a_sweep_was_made_is_told_in_full():
    """Ten times 990 seconds are 2.75 hours; machines, versions and days once; who diverged."""
    others = [
        run(1.0, seed=8, processor="another", date="2026-01-03", seconds=990.0),
        run(1.0, seed=9, torch="2.1", seconds=990.0),
    ]
    runs = [*(run(1.0, seed=seed, seconds=990.0) for seed in range(8)), *others]
    for place, step in ((1, 7), (4, 0)):
        history = replace(runs[place].history, diverged_at=step)
        runs[place] = replace(runs[place], history=history)
    assert made_by(Sweep(tuple(runs), "reproduce x --seeds 0")) == (
        "`calibcourse reproduce x --seeds 0`: 10 runs, 2.8 hours of computing on a machine, "
        "another with torch 2.0, 2.1, 2026-01-02, 2026-01-03.\n\n"
        f"- {runs[1].config.key} diverged at step 7.\n"
        f"- {runs[4].config.key} diverged at step 0.\n"
    )


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


# Sharpness and errors at the even steps 0, 2, 4, 6, 8, with their correlations by hand: of a bump
# with the sharpness 6 / sqrt(56) = 0.80, of its ranks 5 / sqrt(45) = 0.75; up to the peak, at the
# third probe, sqrt(3) / 2 = 0.87 for both.
SHARPNESS, BUMP = (1.0, 2.0, 3.0, 2.0, 1.0), (1.0, 1.0, 2.0, 1.0, 1.0)
RISE, FLAT = (1.0, 2.0, 3.0, 4.0, 5.0), (1.0,) * 5
DIP, MIRROR = (2.0, 2.0, 1.0, 2.0, 2.0), (3.0, 2.0, 1.0, 2.0, 3.0)


def counted(lr, seed, train_ece, train_kce, test_ece, test_kce, optimizer="sgd", probes=5) -> Run:
    """A run of so many even probes with these errors. The probe at step 1 is in no correlation."""
    columns = {
        "sharpness": SHARPNESS, "train_ece": train_ece, "train_kce": train_kce,
        "test_ece": test_ece, "test_kce": test_kce,
    }  # fmt: skip
    even = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    rows = [{"step": 2 * i} | row for i, row in enumerate(even[:probes])]
    rows.insert(1, {"step": 1} | {name: 9.0 + i for i, name in enumerate(columns)})
    options = {"directions": 3} if optimizer == "bulk_sgd" else {}
    config = replace(CONFIG, lr=lr, seed=seed, optimizer=optimizer, options=options)
    diverged_at = None if probes == 5 else 2 * probes
    return Run(config, History(rows, {}, diverged_at), {"seconds": 720.0} | MACHINE)


BULK = counted(0.1, 0, RISE, RISE, RISE, RISE, "bulk_sgd")
COUNTED = Sweep(
    (
        counted(0.01, 0, RISE, RISE, RISE, RISE, "adamw", probes=2),
        counted(0.1, 0, BUMP, RISE, MIRROR, DIP),
        counted(0.1, 1, SHARPNESS, SHARPNESS, FLAT, DIP),
        counted(0.2, 0, SHARPNESS, RISE, FLAT, DIP),
        BULK,
    ),
    "reproduce figure1",
)
# Means over seeds, then mean and deviation over the two learning rates: such as (0.90 + 1) / 2.
WHOLE_RUN = """\
| correlation with sharpness | SGD | AdamW |
|---|---|---|
| train ECE, pearson | 0.95 ± 0.07 | too few probes |
| train ECE, spearman | 0.94 ± 0.09 | too few probes |
| *train ECE, the paper's (Pearson, CIFAR-10)* | 0.84 ± 0.07 | 0.72 ± 0.07 |
| train KCE, pearson | 0.25 ± 0.35 | too few probes |
| train KCE, spearman | 0.25 ± 0.35 | too few probes |
| *train KCE, the paper's (Pearson, CIFAR-10)* | 0.84 ± 0.07 | 0.70 ± 0.08 |
| test ECE, pearson | -1.00 (1 of 3 runs) | too few probes |
| test ECE, spearman | -1.00 (1 of 3 runs) | too few probes |
| *test ECE, the paper's (Pearson, CIFAR-10)* | 0.97 ± 0.01 | 0.15 ± 0.15 |
| test KCE, pearson | -0.80 ± 0.00 | too few probes |
| test KCE, spearman | -0.75 ± 0.00 | too few probes |
| *test KCE, the paper's (Pearson, CIFAR-10)* | 0.97 ± 0.01 | 0.21 ± 0.22 |
"""
UP_TO_THE_PEAK = """\
| correlation with sharpness | SGD | AdamW |
|---|---|---|
| train ECE, pearson | 0.97 ± 0.05 | too few probes |
| train ECE, spearman | 0.97 ± 0.05 | too few probes |
| *train ECE, the paper's (Pearson, CIFAR-10)* | 0.84 ± 0.07 | 0.72 ± 0.07 |
| train KCE, pearson | 1.00 ± 0.00 | too few probes |
| train KCE, spearman | 1.00 ± 0.00 | too few probes |
| *train KCE, the paper's (Pearson, CIFAR-10)* | 0.84 ± 0.07 | 0.70 ± 0.08 |
| test ECE, pearson | -1.00 (1 of 3 runs) | too few probes |
| test ECE, spearman | -1.00 (1 of 3 runs) | too few probes |
| *test ECE, the paper's (Pearson, CIFAR-10)* | 0.97 ± 0.01 | 0.15 ± 0.15 |
| test KCE, pearson | -0.87 ± 0.00 | too few probes |
| test KCE, spearman | -0.87 ± 0.00 | too few probes |
| *test KCE, the paper's (Pearson, CIFAR-10)* | 0.97 ± 0.01 | 0.21 ± 0.22 |
"""


def test_table_1_is_that_counted_by_hand():
    assert table_1_text(COUNTED) == WHOLE_RUN
    assert table_1_text(COUNTED, "up to the peak") == UP_TO_THE_PEAK
    with pytest.raises(ValueError, match=r"^window must be one of up to the peak, whole run"):
        table_1_text(COUNTED, "half")


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """What a report draws, which takes a second to render and is read here as it is."""
    figures: list[Figure] = []
    monkeypatch.setattr(report, "png_bytes", lambda fig: figures.append(fig) or b"a picture")
    return figures


def test_the_report_of_trajectories_has_both_tables_a_picture_and_the_record(tmp_path, drawn):
    paths = write_report(COUNTED, "figure1", tmp_path)
    assert paths == [tmp_path / f"figure1.{suffix}" for suffix in ("png", "md", "json")]
    picture, page, record = paths
    title = "Training ECE rises and falls with sharpness"
    assert page.read_text(encoding="utf-8") == (
        f"# figure1: {title}\n\n`calibcourse reproduce figure1`: 5 runs, 1.0 hours of computing on "
        f"a machine with torch 2.0, 2026-01-02.\n\n- {COUNTED.runs[0].config.key} diverged at step "
        f"4.\n\n## Whole run\n\n{WHOLE_RUN}\n## Up to the peak\n\n{UP_TO_THE_PEAK}"
    )
    (fig,) = drawn
    assert picture.read_bytes() == b"a picture" and fig.get_suptitle() == title
    assert [ax.get_ylabel() for ax in fig.axes[::3]] == [
        "sharpness $\\lambda_{\\max}$",
        "train ECE",
    ]
    assert [ax.get_title() for ax in fig.axes[:3]] == ["AdamW", "SGD", "BulkSGD 3"]
    assert [run.history.rows for run in Sweep.load(record).runs] == [
        run.history.rows for run in COUNTED.runs
    ]


def test_a_report_without_the_papers_optimizers_has_no_table(tmp_path, drawn):
    write_report(Sweep((BULK,), "reproduce figure1"), "figure1", tmp_path)
    text = (tmp_path / "figure1.md").read_text(encoding="utf-8")
    assert text.endswith("with torch 2.0, 2026-01-02.\n\n\n")


@pytest.mark.parametrize(
    ("name", "record", "panel"),
    [
        ("table2", "methods", "SGD"),
        ("grid", "grid", "validation NLL (chooses)"),
        ("shift", "shift", "rotation"),
    ],
)
def test_a_comparison_is_reported_with_its_own_figure_and_text(
    name, record, panel, tmp_path, drawn
):
    sweep = load_recorded(record).select(seed=0)
    picture, page, saved = write_report(sweep, name, tmp_path)
    (fig,) = drawn
    title = COMPARISONS[name].title
    assert (fig.axes[0].get_title(), fig.get_suptitle()) == (panel, title)
    assert picture.read_bytes() == b"a picture" and len(Sweep.load(saved)) == len(sweep)
    expected = f"# {name}: {title}\n\n{made_by(sweep)}\n{comparison_text(sweep, name)}"
    assert page.read_text(encoding="utf-8") == expected


def test_what_is_no_figure_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^name must be one of .*figure1.*; got 'figure9'"):
        write_report(Sweep((run(1.0),)), "figure9", tmp_path)
    assert not list(tmp_path.iterdir())
