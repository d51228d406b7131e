"""Figures of margins, curvature, bounds and directions, read back."""

import math
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from plots_cases import (
    CLASSES,
    FLIPS,
    IMAGES,
    SANDWICH,
    STEPS,
    TAIL,
    TOTALS,
    bands,
    bars,
    history,
    legend,
    lines,
    outline,
    segments,
    words,
)

from calibcourse import plots
from calibcourse.attacks import RobustMargin
from calibcourse.bounds import NATS_PER_DECADE

# A tensor where matplotlib wants an array works today and warns.
pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


def dots(ax: Axes, color: str) -> np.ndarray:
    """(n, 2) places of the scattered dots in a colour."""
    found = [
        np.asarray(c.get_offsets())
        for c in ax.collections
        if isinstance(c, mpl.collections.PathCollection)
        and same_color(c.get_facecolor()[0][:3], color)
    ]
    return np.concatenate(found)


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
    assert axes[0].get_xlim() == (-7.5, 5.5)
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
    # The same axes at every radius, so that the histogram moves and nothing else.
    assert (axes[3].get_xlim(), axes[3].get_ylim()) == (axes[0].get_xlim(), axes[0].get_ylim())
    counted = bars(axes[0], plots.MARGIN)[:, 3].sum(), outline(axes[0], plots.WRONG).sum()
    assert counted == pytest.approx((1, 1))


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
    for text, values in zip(ax.texts, decades, strict=True):
        assert text.xy == pytest.approx((20, values[-1]))  # from here a line leads to the name
        assert text.xyann == pytest.approx((20.8, values[-1])) and text.arrow_patch is not None


def test_ladder_parts_labels_that_would_collide_and_skips_rungs_not_measured():
    ends = {"l1": 0.0, "u0": 1.0, "u1": 1.01, "u2": 1.02, "u6": 10.0}
    record = history(**{f"train_log_{r}": [v * NATS_PER_DECADE] * 3 for r, v in ends.items()})
    ax = plots.ladder(record)
    assert [y[0] for _, y in (line.get_data() for line in ax.lines)] == pytest.approx(
        [*ends.values()]
    )
    heights = [text.xyann[1] for text in ax.texts]
    assert [text.xy[1] for text in ax.texts] == pytest.approx([*ends.values()])
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
