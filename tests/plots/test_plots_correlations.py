"""Figures of correlations, read back."""

import numpy as np
import pytest
from matplotlib.colors import same_color
from plots_cases import (
    DOTS,
    PUBLISHED,
    RUN,
    SANDWICH,
    STEPS,
    WINDOWS,
    bands,
    history,
    legend,
    lines,
    segments,
)

from calibcourse import plots

# A tensor where matplotlib wants an array works today and warns.
pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


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
    ticks = [tick.get_text() for tick in ax.get_xticklabels()]
    assert ticks == ["SGD\n3 runs", "Muon\n2 runs"]
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
