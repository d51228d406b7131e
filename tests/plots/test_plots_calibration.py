"""Figures of calibration, read back."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from plots_cases import (
    CURVE,
    LOGITS,
    MARGINS,
    TARGET,
    bars,
    legend,
    lines,
    outline,
    segments,
    words,
)

from calibcourse import plots
from calibcourse.metrics import noise_floor

# A tensor where matplotlib wants an array works today and warns.
pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


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
    np.testing.assert_allclose(segments(ax, "black"), whiskers)  # not in the colour of the gaps
    np.testing.assert_allclose(lines(ax, color="black", marker="o"), [[confidence, accuracy]])
    np.testing.assert_array_equal(lines(ax, color=plots.IDEAL, linestyle="--"), [[[0, 1]] * 2])
    # The strip of counts: shares of all samples, the largest fixed at 0.15.
    strip = np.array([5, 20, 75]) / 75 * 0.15
    np.testing.assert_allclose(bars(ax, plots.IDEAL), np.transpose([left, [0] * 3, width, strip]))
    assert legend(ax) == {
        "accuracy": color.lower(),
        "its 95 % interval": "#000000",
        "gap to confidence": plots.BOUND.lower(),
        "images per bin (largest 75%)": plots.IDEAL.lower(),
    }
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)


def test_reliability_diagram_leaves_out_what_is_not_wanted():
    ax = plots.reliability_diagram(CURVE, counts=False, legend=False)
    assert ax.get_legend() is None and len(bars(ax, plots.IDEAL)) == 0
    assert list(legend(plots.reliability_diagram(CURVE, counts=False))) == [
        "accuracy", "its 95 % interval", "gap to confidence",
    ]  # fmt: skip


FLOOR = noise_floor(torch.tensor([0.4] * 5 + [0.6] * 20 + [0.9] * 75), n_bins=4, n_draws=200)


def test_reliability_diagram_can_show_what_chance_makes_of_a_calibrated_network():
    assert len(bars(plots.reliability_diagram(CURVE), plots.NOISE)) == 0
    ax = plots.reliability_diagram(CURVE, floor=FLOOR)
    low, high = FLOOR.accuracy_low[1:].numpy(), FLOOR.accuracy_high[1:].numpy()
    band = np.transpose([[0.25, 0.5, 0.75], low, [0.25] * 3, high - low])
    np.testing.assert_allclose(bars(ax, plots.NOISE), band)
    assert legend(ax)["calibrated network, by chance"] == plots.NOISE
    # A calibrated bin of n samples: sd √(c(1-c)/n); its band is some four of them wide.
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
    np.testing.assert_allclose(lines(ax, color="black", marker="o"), [[[0.75], [0.75]]])
    np.testing.assert_allclose(bars(ax, plots.TEST), [[0.6, 0, 0.2, 0.75]])
    nll = -(3 * math.log(0.75) + math.log(0.25)) / 4
    assert ax.get_title() == f"T = 2.00, 5 bins\nECE 0.000, NLL {nll:.2f} nats"
    plain = plots.tempered_reliability(LOGITS, TARGET, legend=False)
    assert "T = 1.00, 15 bins\nECE 0.150" in plain.get_title() and plain.get_legend() is None


def test_temperature_grid_has_a_row_per_binning_and_a_column_per_temperature():
    fig = plots.temperature_grid(LOGITS, TARGET, (0.5, 2.0), (4, 8))
    heads = [ax.get_title().split("\n")[0] for ax in fig.axes]
    assert heads == [f"T = {t}, {n} bins" for n in (4, 8) for t in ("0.50", "2.00")]
    assert [ax.get_legend() is not None for ax in fig.axes] == [False, False, True, False]
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
    found, ranges = lines(ax, color=plots.TEST), segments(ax, plots.TEST).reshape(4, 2, 2, 2)
    assert len(found) == len(values)
    for place, n_bins in enumerate(sorted(values)):
        x = np.array(sizes) * 1.05**place  # beside each other
        np.testing.assert_allclose(found[place], [x, values[n_bins].mean(1)])
        ends = np.stack([values[n_bins].amin(1), values[n_bins].amax(1)], axis=1)
        np.testing.assert_allclose(ranges[place], np.stack([x[:, None] + 0 * ends, ends], axis=2))
    assert len({line.get_marker() for line in ax.lines}) == len(values)
    assert words(ax) == [f"  {n_bins} bins" for n_bins in sorted(values)]
    assert [text.xy[1] for text in ax.texts] == pytest.approx(
        [0.15 * n / 10 for n in sorted(values)]
    )
    assert ax.get_xscale() == ax.get_yscale() == "log"
