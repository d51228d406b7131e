"""Figures of the comparison of methods, read back: every seed's number where it belongs."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgb
from plots_cases import lines

from calibcourse import plots
from calibcourse.history import History
from calibcourse.plots import IDEAL, TEST
from calibcourse.reproduce import (
    METHODS,
    REMEDIES,
    ComparisonConfig,
    Run,
    Sweep,
    comparison_figure,
    grid_figure,
    remedies_figure,
    weights_panel,
)
from calibcourse.reproduce.plans import GRID


def run(optimizer: str, loss: str, options: dict, seed: int, start: dict, best: dict, final: dict):
    """A run probed at steps 0, 12 and 24, the second of which is its best."""
    config = ComparisonConfig(
        dataset="fashion_mnist_small", model="small_cnn", optimizer=optimizer, lr=0.01, loss=loss,
        loss_options=options, steps=24, batch_size=16, train_samples=60, held_out_samples=80,
        seed=seed,
    )  # fmt: skip
    rows = [
        {"step": step} | row for step, row in zip((0, 12, 24), (start, best, final), strict=True)
    ]
    return Run(config, History(rows), {})


# What is measured of a run, without the part that tells its seed and step.
ECE = {"CE": 0.1, "Flat": 0.2, "Rob": 0.3, "CalMO": 0.4, "label smoothing": 0.5, "focal": 0.6}


def measured(optimizer: str, method: str, seed: int, rule: str) -> dict[str, float]:
    more = 0.001 * seed + (0.01 if rule == "best" else 0) + (0.02 if optimizer == "adamw" else 0)
    ece = ECE[method] + more
    row = {"test_ece": ece, "test_accuracy": 1 - ece / 2, "test_robust_margin": 8 * ece - 2}
    return row | {
        "temperature": 2.0,
        "test_scaled_ece": ece / 10,
        "test_scaled_accuracy": 1 - ece / 2,
        "validation_loss": 1.0 if rule == "best" else 2.0,
    }


def compared(methods, optimizers=("sgd", "adamw"), seeds=(0, 1)) -> Sweep:
    return Sweep(tuple(
        run(optimizer, METHODS[method][0], dict(METHODS[method][1]), seed,
            {"validation_loss": 3.0}, measured(optimizer, method, seed, "best"),
            measured(optimizer, method, seed, "final"))
        for optimizer in optimizers for method in methods for seed in seeds
    ))  # fmt: skip


def dots(ax: Axes, face: str) -> np.ndarray:
    """(n, 2) of the dots that are filled with a colour, from left to right."""
    found = [c.get_offsets() for c in ax.collections if same_color(c.get_facecolor()[0], face)]
    made = np.asarray(np.concatenate(found))
    return made[np.lexsort(made.T[::-1])]


def test_a_comparison_has_a_panel_per_optimizer_and_a_place_per_method():
    fig = comparison_figure(compared(("CalMO", "CE")))
    assert [ax.get_title() for ax in fig.axes] == ["SGD", "AdamW", "", ""]
    for ax, (optimizer, column, low) in zip(
        fig.axes,
        [(o, c, low) for c, low in (("test_ece", 0), ("test_accuracy", None))
         for o in ("sgd", "adamw")],
        strict=True,
    ):  # fmt: skip
        for face, rule, shift in ((TEST, "final", -0.15), ("white", "best", 0.15)):
            # Cross-entropy at its temperature has a tenth of its ECE and its very accuracy.
            wanted = [
                (place + shift, measured(optimizer, method, seed, rule)[name])
                for place, (method, name) in enumerate([
                    ("CE", column), ("CalMO", column), ("CE", column.replace("_", "_scaled_")),
                ])
                for seed in (0, 1)
            ]  # fmt: skip
            np.testing.assert_allclose(dots(ax, face), sorted(wanted))
        assert all(same_color(c.get_edgecolor()[0], TEST) for c in ax.collections)
        assert list(ax.get_xticks()) == [0, 1, 2]
        assert low is None or ax.get_ylim()[0] == low
    names = [label.get_text() for label in fig.axes[2].get_xticklabels()]
    assert names == ["CE", "CalMO", "CE + temperature"]
    shown = [any(label.get_visible() for label in ax.get_xticklabels()) for ax in fig.axes]
    assert shown == [False, False, True, True]  # once for both rows
    assert [ax.get_ylabel() for ax in fig.axes[::2]] == ["test ECE", "test accuracy"]
    (box,) = [ax.get_legend() for ax in fig.axes if ax.get_legend()]
    told = {
        text.get_text(): handle.get_facecolor()
        for text, handle in zip(box.get_texts(), box.legend_handles, strict=True)
    }
    names = [text.get_text() for text in box.get_texts()]  # once each
    assert names == ["final step", "best validation step"]
    assert same_color(told["final step"][0], TEST)
    assert same_color(told["best validation step"][0], "white")
    # Each row has one scale, so that optimizers can be compared.
    limits = [ax.get_ylim() for ax in fig.axes]
    assert limits[0] == limits[1] != limits[2] == limits[3]


def test_without_cross_entropy_there_is_no_temperature_to_show():
    fig = comparison_figure(compared(("Rob", "Flat"), ("muon",)))
    names = [label.get_text() for label in fig.axes[1].get_xticklabels()]
    assert names == ["Flat", "Rob"] and fig.axes[0].get_title() == "Muon"


def test_remedies_stand_where_their_error_and_robust_margin_are():
    optimizers = ("sgd", "adamw", "muon")
    fig = remedies_figure(compared(METHODS, optimizers))
    assert [ax.get_title() for ax in fig.axes] == ["SGD", "AdamW", "Muon"]
    for ax, optimizer in zip(fig.axes, optimizers, strict=True):
        shown = {c.get_label(): c for c in ax.collections}
        assert list(shown) == list(REMEDIES)
        for remedy, marks in shown.items():
            method, rule = REMEDIES[remedy]
            at_temperature = method == "CE + temperature"
            rows = [
                measured(optimizer, "CE" if at_temperature else method, seed, rule)
                for seed in (0, 1)
            ]
            wanted = [(row["test_ece"], row["test_robust_margin"]) for row in rows]
            if at_temperature:  # 2: halves margins
                wanted = [(row["test_scaled_ece"], row["test_robust_margin"] / 2) for row in rows]
            np.testing.assert_allclose(marks.get_offsets(), wanted)
            looked = method in ("Rob", "CalMO")
            assert same_color(marks.get_facecolor()[0], TEST if looked else "white"), remedy
            assert same_color(marks.get_edgecolor()[0], TEST)  # white on white shows nothing
        shapes = {c.get_paths()[0].vertices.tobytes() for c in ax.collections}
        assert len(shapes) == len(REMEDIES)  # marks can be told from each other
        assert [line.tolist()[1] for line in lines(ax, linestyle="--")] == [[0, 0]]
        assert ax.get_xlabel() == "test ECE" and ax.get_xlim()[0] == 0
    first, _, last = fig.axes
    assert first.get_xlim() == last.get_xlim() and first.get_ylim() == last.get_ylim()
    assert first.get_ylabel() == "mean robust margin (logits)" and first.get_legend() is None
    assert [text.get_text() for text in last.get_legend().get_texts()] == list(REMEDIES)
    assert last.get_legend().get_title().get_text() == "filled: attacks in training"


# --- CalMO's two weights

ROBUST, SMOOTH = (list(GRID[name]) for name in ("robust_weight", "smooth_weight"))


def cell(i: int, j: int, rule: str) -> dict[str, float]:
    """A cell's measures. The loss is least in row 2 and column 1, at the best step in (0, 3)."""
    least = (0, 3) if rule == "best" else (2, 1)
    loss = (1 if rule == "best" else 2) + 0.1 * abs(i - least[0]) + 0.01 * abs(j - least[1])
    step = 0.5 if rule == "best" else 0
    return {
        "validation_loss": loss,
        "validation_ece": 0.3 + loss / 10,
        "test_ece": 0.1 + 0.04 * i + 0.01 * j + step,
        "test_accuracy": 0.9 - 0.04 * i - 0.01 * j - step,
    }


def weighed() -> Sweep:
    """Two seeds of every cell, a little above and below its measures."""
    runs = []
    for i, robust in enumerate(ROBUST):
        for j, smooth in enumerate(SMOOTH):
            plain = not robust and not smooth
            options = {} if plain else {"robust_weight": robust, "smooth_weight": smooth}
            for seed, more in ((0, 0.001), (1, -0.001)):
                rows = [
                    {name: value + more for name, value in cell(i, j, rule).items()}
                    for rule in ("best", "final")
                ]
                start = {"validation_loss": 9.0, "validation_ece": 0.9}
                loss = "cross_entropy" if plain else "calmo"
                runs.append(run("adamw", loss, options, seed, start, *rows))
    return Sweep(tuple(runs))


@pytest.mark.parametrize(
    ("asked", "rule", "chosen"), [((), "final", (2, 1)), (("best",), "best", (0, 3))]
)
def test_a_grid_shows_every_cell_and_frames_that_of_the_lowest_validation_loss(asked, rule, chosen):
    fig = grid_figure(weighed(), *asked)
    columns = {
        "validation NLL (chooses)": ("validation_loss", np.argmin),
        "test ECE": ("test_ece", np.argmin),
        "test accuracy": ("test_accuracy", np.argmax),
    }
    assert [ax.get_title() for ax in fig.axes] == list(columns)
    for ax in fig.axes:
        column, best = columns[ax.get_title()]
        values = np.array([[cell(i, j, rule)[column] for j in range(4)] for i in range(4)])
        (image,) = ax.images
        np.testing.assert_allclose(image.get_array(), values)
        assert image.origin == "lower" and ax.get_ylim() == (-0.5, 3.5)
        told = {text.get_position(): text for text in ax.texts}
        assert {place: text.get_text() for place, text in told.items()} == {
            (j, i): f"{values[i, j]:.3f}" for i in range(4) for j in range(4)
        }
        bright = image.to_rgba(image.get_array())[..., :3] @ (0.299, 0.587, 0.114)
        assert bright.argmax() == best(values)  # the better, the brighter, in every panel
        for (j, i), text in told.items():
            # A number can be read: black on bright cells, white on dark ones.
            assert abs(sum(to_rgb(text.get_color())) / 3 - bright[i, j]) > 0.35, (i, j)
        (frame,) = ax.patches
        assert frame.get_bbox().bounds == (chosen[1] - 0.5, chosen[0] - 0.5, 1, 1)
        assert not frame.get_fill()
        assert (list(ax.get_xticks()), list(ax.get_yticks())) == ([0, 1, 2, 3], [0, 1, 2, 3])
        assert [text.get_text() for text in ax.get_xticklabels()] == [f"{w:g}" for w in SMOOTH]
        assert [text.get_text() for text in ax.get_yticklabels()] == [f"{w:g}" for w in ROBUST]
        assert ax.get_xlabel() == "$\\lambda_s$"
    assert fig.axes[0].get_ylabel() == "$\\lambda_r$"


def test_a_cells_way_through_training_and_its_end_stand_before_all_others():
    _, (way, end) = plots.figure(2)
    weights_panel(weighed(), ROBUST[2], SMOOTH[3], (way, end))

    def ways(i, j):
        """Validation ECE of both seeds, from step to step."""
        at = [cell(i, j, rule)["validation_ece"] for rule in ("best", "final")]
        return [[[0, 12, 24], [0.9, at[0] + more, at[1] + more]] for more in (0.001, -0.001)]

    for color, place in ((IDEAL, (0, 0)), (TEST, (2, 3))):
        np.testing.assert_allclose(lines(way, color=color, marker="None"), ways(*place))
        circles = [line for line in way.lines if line.get_marker() == "o"]
        assert all(same_color(c.get_markerfacecolor(), "white") for c in circles)
        stops = [c.get_xydata()[0] for c in circles if same_color(c.get_markeredgecolor(), color)]
        np.testing.assert_allclose(stops, [np.array(w)[:, 1] for w in ways(*place)])
    assert (way.get_xlabel(), way.get_ylabel()) == ("training step", "validation ECE")
    assert way.get_title() == "grey: cross-entropy; circles: best validation step"
    assert way.get_ylim()[0] == end.get_xlim()[0] == 0

    def ends(cells, rule):
        found = [
            [cell(i, j, rule)[name] + more for name in ("test_ece", "test_accuracy")]
            for i, j in cells for more in (0.001, -0.001)
        ]  # fmt: skip
        return sorted(found)

    everything = [(i, j) for i in range(4) for j in range(4)]
    for edge, cells in ((IDEAL, everything), (TEST, [(2, 3)])):
        for face, rule in ((edge, "final"), ("white", "best")):
            (marks,) = [
                c for c in end.collections
                if same_color(c.get_edgecolor()[0][:3], edge)
                and same_color(c.get_facecolor()[0][:3], face)
            ]  # fmt: skip
            np.testing.assert_allclose(sorted(marks.get_offsets().tolist()), ends(cells, rule))
    assert (end.get_xlabel(), end.get_ylabel()) == ("test ECE", "test accuracy")
    # Before it come the other three of its row: 2 + 0.00, 0.01 and 0.01 against its 2.02.
    assert end.get_title() == "filled: final step. Validation loss: rank 4 of 16"
