"""Noise floor, per-class gaps, debiasing, decomposition, comparisons.

Against closed forms, written out float64 and other libraries.
"""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import softmax

from calibcourse import metrics
from calibcourse.metrics import (
    brier_decomposition,
    class_over_confidence,
    classwise_calibration_error,
    compare_models,
    confidence_and_correct,
    debiased_ece,
    ece_of_confidence,
    expected_calibration_error,
    noise_floor,
    paired_difference,
    predicted_class,
    reliability_of_confidence,
    top_label_calibration_error,
)

CASES = [(1, 2, 1.0, 15), (17, 2, 0.1, 4), (200, 3, 2.0, 1), (300, 10, 3.0, 15), (99, 300, 4.0, 10)]
BAD_CONFIDENCE = [
    (torch.tensor([1, 0]), TypeError, "floating"),
    ([0.5], TypeError, "list"),
    (torch.zeros(0), ValueError, "N >= 1"),
    (torch.zeros(2, 2), ValueError, r"shape \(N,\)"),
    (torch.tensor([0.5, 1.1]), ValueError, r"\[0, 1\]"),
    (torch.tensor([0.5, math.nan]), ValueError, r"\[0, 1\]"),
]


def sample(n_samples, n_classes=10, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n_samples, n_classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial((logits / 1.5).softmax(1), 1, generator=generator)[:, 0]
    return logits, target


def bin_of(p, n_bins):
    """(a, b], 0 in the first: by comparison with every edge."""
    edges = np.array([k / n_bins for k in range(1, n_bins)])
    return (p[..., None] > edges).sum(-1)


# ---------------------------------------------------------------------------- pairs alone


@pytest.mark.parametrize("case", CASES)
def test_ece_needs_confidence_and_correct_alone(case):
    n_samples, n_classes, scale, n_bins = case
    logits, target = sample(n_samples, n_classes, scale)
    ours = ece_of_confidence(*confidence_and_correct(logits, target), n_bins)
    # 1 - c by subtraction: float64 rounding of each sample.
    whole = expected_calibration_error(logits, target, n_bins)
    assert float(ours) == pytest.approx(float(whole), abs=1e-15)


@pytest.mark.parametrize("case", CASES)
def test_the_curve_needs_confidence_and_correct_alone(case):
    n_samples, n_classes, scale, n_bins = case
    logits, target = sample(n_samples, n_classes, scale)
    ours = reliability_of_confidence(*confidence_and_correct(logits, target), n_bins)
    whole = metrics.reliability_curve(logits, target, n_bins)
    for name in ("edges", "count", "confidence", "accuracy", "over_confidence"):
        # Rounding as above, of sums of up to 300; empty bins are NaN in both.
        assert torch.allclose(
            getattr(ours, name).double(), getattr(whole, name).double(), atol=1e-13, equal_nan=True
        )


@pytest.mark.parametrize(
    "function",
    [ece_of_confidence, reliability_of_confidence, debiased_ece, brier_decomposition],
)
def test_bad_pairs_are_named(function):
    for confidence, error, message in BAD_CONFIDENCE:
        with pytest.raises(error, match=f"confidence.*{message}"):
            function(confidence, torch.tensor([True, False]))
    for correct, error in (
        (torch.tensor([1, 0]), TypeError),
        (torch.tensor([True]), ValueError),
        (np.array([True, False]), TypeError),
    ):
        with pytest.raises(error, match="correct must have"):
            function(torch.tensor([0.5, 0.6]), correct)
    with pytest.raises(ValueError, match="n_bins"):
        function(torch.tensor([0.5]), torch.tensor([True]), 0)


def test_debiased_ece_is_that_of_uncertainty_calibration(monkeypatch):
    """The library draws the folded normal's mean that we write out."""
    calibration = pytest.importorskip("calibration")
    logits, target = sample(2000, 5, 1.5)
    confidence, correct = confidence_and_correct(logits, target)
    # Its bins refuse a single sample; ours have none.
    count = metrics.reliability_curve(logits, target, 5).count
    filled = count[count > 0]
    assert filled.min() > 1
    data = list(zip(confidence.tolist(), correct.double().tolist(), strict=True))
    binned = [
        group for group in calibration.utils.bin(data, [k / 5 for k in range(1, 6)]) if len(group)
    ]
    np.random.seed(0)
    theirs = calibration.utils.normal_debiased_ce(binned, power=1, resamples=20_000)
    # Each draw spreads by about the ECE's standard error, 0.01: their mean by 0.01/√20,000.
    ours = float(debiased_ece(confidence, correct, 5))
    assert ours == pytest.approx(theirs, abs=4e-4)
    assert ours < float(ece_of_confidence(confidence, correct, 5))


def test_debiasing_takes_off_most_of_what_chance_adds():
    """Calibrated networks, true ECE 0; fifty of them place the mean to a few percent."""
    plain, debiased = [], []
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        confidence = 0.5 + 0.5 * torch.rand(1000, generator=generator, dtype=torch.float64)
        correct = torch.rand(1000, generator=generator, dtype=torch.float64) < confidence
        plain.append(float(ece_of_confidence(confidence, correct)))
        debiased.append(float(debiased_ece(confidence, correct)))
    assert abs(np.mean(debiased)) < 0.6 * np.mean(plain)


def test_debiasing_leaves_certain_bins_alone():
    confidence, correct = torch.tensor([0.9, 0.8], dtype=torch.float64), torch.ones(2) > 0
    assert float(debiased_ece(confidence, correct)) == pytest.approx(0.15, abs=1e-15)


@pytest.mark.parametrize("case", CASES)
def test_brier_parts_by_their_definition(case):
    n_samples, n_classes, scale, n_bins = case
    logits, target = sample(n_samples, n_classes, scale)
    confidence, correct = confidence_and_correct(logits, target)
    parts = brier_decomposition(confidence, correct, n_bins)
    c, r = confidence.numpy(), correct.numpy().astype(float)
    reliability = resolution = within = 0.0
    for b in range(n_bins):
        inside = bin_of(c, n_bins) == b
        if inside.any():
            share, centred = inside.mean(), c[inside] - c[inside].mean()
            reliability += share * (c[inside].mean() - r[inside].mean()) ** 2
            resolution += share * (r[inside].mean() - r.mean()) ** 2
            # Stephenson et al. 2008: within-bin variance less twice the covariance.
            within += share * (centred**2 - 2 * centred * r[inside]).mean()
    expected = (((c - r) ** 2).mean(), reliability, resolution, r.mean() * (1 - r.mean()), within)
    got = (parts.score, parts.reliability, parts.resolution, parts.uncertainty, parts.within_bins)
    assert got == pytest.approx(expected, abs=1e-14)  # float64 means
    assert "reliability" in repr(parts)


# ---------------------------------------------------------------------------- noise floor


def test_the_floor_of_one_bin_is_half_normal():
    """All confidences c: ECE = |binomial mean - c|, mean √(2/π) s, 95 % below 1.96 s."""
    n, c = 10_000, 0.8
    floor = noise_floor(torch.full((n,), c, dtype=torch.float64), n_draws=4000)
    s = math.sqrt(c * (1 - c) / n)
    # 4,000 draws: 1 % of the mean; quantiles to a few percent, and steps of 1/n.
    assert floor.mean == pytest.approx(math.sqrt(2 / math.pi) * s, rel=0.04)
    assert floor.high == pytest.approx(2.24 * s, rel=0.06)
    assert float(floor.draws.quantile(0.95)) == pytest.approx(1.96 * s, rel=0.06)
    bin_ = floor.accuracy_low.isfinite().nonzero().item()
    ends = (float(floor.accuracy_low[bin_]), float(floor.accuracy_high[bin_]))
    assert ends == pytest.approx((c - 1.96 * s, c + 1.96 * s), abs=0.15 * s)


def test_the_floor_is_the_ece_of_its_own_draws():
    """Two samples of unlike bins: four outcomes, each with its probability."""
    confidence = torch.tensor([0.9, 0.6], dtype=torch.float64)
    floor = noise_floor(confidence, n_bins=5, n_draws=20_000)
    expected = {}
    for right in itertools.product((False, True), repeat=2):
        value = float(ece_of_confidence(confidence, torch.tensor(right), 5))
        chance = math.prod(c if r else 1 - c for c, r in zip((0.9, 0.6), right, strict=True))
        expected[round(value, 9)] = expected.get(round(value, 9), 0) + chance
    values, counts = np.unique(floor.draws.numpy().round(9), return_counts=True)
    assert set(values) == set(expected)
    for value, count in zip(values, counts, strict=True):
        # Binomial spread of 20,000 draws is below 0.0036; four of them.
        assert count / 20_000 == pytest.approx(expected[value], abs=0.0145)
    assert floor.share_above(0) == 1 and floor.share_above(2) == 1 / 20_001
    assert floor.share_above(0.45) == pytest.approx(0.1, abs=0.01)  # where 0.9 is wrong


def test_calibrated_networks_stay_below_their_floor():
    above = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        confidence = 0.5 + 0.5 * torch.rand(400, generator=generator)
        correct = torch.rand(400, generator=generator) < confidence
        above += (
            float(ece_of_confidence(confidence, correct))
            > noise_floor(confidence, n_draws=200, seed=seed).high
        )
    assert above <= 6  # Binomial(60, 0.025): more than 6 have a probability of 1e-4


def test_the_floor_depends_on_seed_and_data_alone():
    confidence = torch.linspace(0.3, 1, 500)
    one = noise_floor(confidence, n_draws=50, seed=1)
    assert torch.equal(one.draws, noise_floor(confidence, n_draws=50, seed=1).draws)
    assert not torch.equal(one.draws, noise_floor(confidence, n_draws=50, seed=2).draws)
    assert repr(one).startswith("NoiseFloor(mean 0.0") and "500 samples" in repr(one)
    assert noise_floor(confidence, n_draws=50, level=0.5).high < one.high
    assert noise_floor(torch.ones(5)).high == 0  # certain and calibrated: always right


def test_memory_does_not_decide_the_draws(monkeypatch):
    confidence = torch.linspace(0.3, 1, 50)
    whole = noise_floor(confidence, n_draws=20)
    monkeypatch.setattr(metrics.noise, "_DRAWN_AT_ONCE", 120)
    assert torch.equal(noise_floor(confidence, n_draws=20).draws, whole.draws)


def test_bad_arguments_of_the_floor_are_named():
    for confidence, error, message in BAD_CONFIDENCE:
        with pytest.raises(error, match=f"confidence.*{message}"):
            noise_floor(confidence)
    good = torch.tensor([0.5])
    for name, value in (("n_bins", 0), ("n_draws", 0), ("level", 1.0), ("seed", -1)):
        with pytest.raises(ValueError, match=name):
            noise_floor(good, **{name: value})


# ---------------------------------------------------------------------------- per class


@pytest.mark.parametrize("case", CASES)
def test_classwise_error_by_its_definition(case):
    n_samples, n_classes, scale, n_bins = case
    logits, target = sample(n_samples, n_classes, scale)
    p = softmax(logits.numpy(), axis=1)
    errors = []
    for k in range(n_classes):
        index, hit = bin_of(p[:, k], n_bins), target.numpy() == k
        sums = [abs((hit[index == b] - p[index == b, k]).sum()) for b in range(n_bins)]
        errors.append(sum(sums) / n_samples)
    ours = classwise_calibration_error(logits, target, n_bins)
    assert float(ours) == pytest.approx(np.mean(errors), abs=1e-14)  # float64 sums


@pytest.mark.parametrize("case", CASES)
def test_top_label_error_by_its_definition(case):
    n_samples, n_classes, scale, n_bins = case
    logits, target = sample(n_samples, n_classes, scale)
    p = softmax(logits.numpy(), axis=1)
    c, predicted = p.max(1), p.argmax(1)
    residual = (predicted == target.numpy()) - c
    error = 0.0
    for k, b in itertools.product(range(n_classes), range(n_bins)):
        error += abs(residual[(predicted == k) & (bin_of(c, n_bins) == b)].sum())
    ours = float(top_label_calibration_error(logits, target, n_bins))
    assert ours == pytest.approx(error / n_samples, abs=1e-14)  # float64 sums
    assert ours >= float(expected_calibration_error(logits, target, n_bins)) - 1e-15


def test_uncertainty_calibration_agrees_on_every_class():
    """Its marginal ECE with p = 1 is class-wise ECE, class by class."""
    calibration = pytest.importorskip("calibration")
    logits, target = sample(400, 4, 1.0)
    theirs = calibration.get_ece(
        softmax(logits.numpy(), axis=1), target.numpy(), num_bins=10, mode="marginal"
    )
    ours = float(classwise_calibration_error(logits, target, 10))
    assert ours == pytest.approx(theirs, abs=1e-14)


def test_over_confidence_of_each_class():
    logits, target = sample(3000, 4, 2.0)
    found = class_over_confidence(logits, target)
    confidence, correct = confidence_and_correct(logits, target)
    predicted = logits.argmax(1)
    for k in range(4):
        inside = predicted == k
        c, right, n = confidence[inside].mean(), int(correct[inside].sum()), int(inside.sum())
        ends = scipy.stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert int(found.count[k]) == n
        assert float(found.over_confidence[k]) == pytest.approx(float(c) - right / n, abs=1e-13)
        # 1.96 in place of 1.95996.
        assert (float(found.low[k]), float(found.high[k])) == pytest.approx(
            (float(c) - ends[1], float(c) - ends[0]), abs=1e-5
        )
    assert found.outside.tolist() == found.over_confidence.argsort(descending=True).tolist()


def test_opposite_classes_that_cancel_are_seen():
    """Confidence 0.8 in both classes; one is right 9 of 10 times, the other 7 of 10."""
    half = 1000
    rows = [[math.log(4), 0.0]] * half + [[0.0, math.log(4)]] * half
    logits = torch.tensor(rows, dtype=torch.float64)
    place = torch.arange(half) % 10
    target = torch.cat([(place >= 9).long(), (place < 7).long()])
    assert float(expected_calibration_error(logits, target)) == pytest.approx(0, abs=1e-12)
    assert float(top_label_calibration_error(logits, target)) == pytest.approx(0.1)
    found = class_over_confidence(logits, target)
    assert found.over_confidence.tolist() == pytest.approx([-0.1, 0.1])
    assert sorted(found.outside.tolist()) == [0, 1]
    assert found.expected_by_chance < 0.3 and "2 of 2 classes" in repr(found)


def test_a_calibrated_network_has_as_many_outside_as_chance_says():
    logits, _ = sample(4000, 50, 2.0)
    generator = torch.Generator().manual_seed(1)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    found = class_over_confidence(logits, target)
    assert 0.5 < found.expected_by_chance < 4  # 5 % of 50, and Wilson's is a little wide
    assert len(found.outside) <= found.at_most_by_chance + 2


def test_classes_never_predicted_are_left_out():
    found = class_over_confidence(torch.tensor([[3.0, 0.0, 0.0]] * 4), torch.tensor([0, 0, 1, 2]))
    assert found.count.tolist() == [4, 0, 0] and found.over_confidence[1:].isnan().all()
    assert set(found.outside.tolist()) <= {0}


def test_the_predicted_class_is_the_lowest_that_ties():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [0.0, 0.0, 3.0]])
    assert predicted_class(logits).tolist() == [0, 1, 2]
    logits, _ = sample(500, 7)
    assert torch.equal(predicted_class(logits), logits.argmax(1))


# ---------------------------------------------------------------------------- comparisons


def test_paired_difference_is_the_paired_t_interval():
    generator = np.random.default_rng(0)
    for n in (2, 3, 4, 10, 200):
        a, b = generator.normal(size=(2, n))
        for level in (0.5, 0.95, 0.999):
            ours = paired_difference(a, b, "runs", level)
            theirs = scipy.stats.ttest_rel(a, b).confidence_interval(level)
            ends = (ours.difference.low, ours.difference.high)
            # The quantile comes from a grid of 200,000 angles.
            assert ends == pytest.approx((theirs.low, theirs.high), rel=1e-6)
            assert (ours.n_units, ours.unit) == (n, "runs")


def test_the_verdict_says_which_or_tie():
    assert paired_difference([3, 4, 5], [1, 2, 2], "seeds").verdict == "first is larger"
    assert paired_difference([1, 2, 2], [3, 4, 5], "seeds").verdict == "second is larger"
    assert paired_difference([1, 2, 3], [3, 1, 2], "seeds").verdict == "tie"
    assert paired_difference([1.0, 1.0], [1.0, 1.0], "seeds").verdict == "tie"
    assert "tie" in repr(paired_difference([1, 2, 3], [3, 1, 2], "seeds"))
    assert "3 seeds" in repr(paired_difference([1, 2, 3], [3, 1, 2], "seeds"))


def test_models_are_compared_on_the_same_resamples():
    """The standard error of a paired difference of means is that of the differences."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(2000, generator=generator, dtype=torch.float64)
    second = first + 0.1 * torch.randn(2000, generator=generator, dtype=torch.float64)
    found = compare_models(lambda x, y: x.mean(), first, second, torch.zeros(2000))
    error = float((first - second).std()) / math.sqrt(2000)
    half = (found.difference.high - found.difference.low) / 2
    assert half == pytest.approx(1.96 * error, rel=0.1)  # 1,000 resamples: 2 %
    assert found.n_units == 2000 and found.verdict == "tie"
    assert compare_models(lambda x, y: x.mean(), first + 1, second, torch.zeros(2000)).verdict == (
        "first is larger"
    )


def test_two_calibrated_networks_tie_though_their_floors_differ():
    """Plain ECE calls the less confident of two calibrated networks worse; debiased, rarely."""
    ties = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        models = []
        for low in (0.55, 0.94):
            c = low + 0.06 * torch.rand(1500, generator=generator, dtype=torch.float64)
            c[::2] += 0.3 * (low < 0.9)
            right = torch.rand(1500, generator=generator, dtype=torch.float64) < c
            models.append(torch.stack([c, right.double()], 1))

        def of(function):
            return lambda pair, _: function(pair[:, 0].contiguous(), pair[:, 1].bool())

        labels = torch.zeros(1500)
        ties.append(
            compare_models(of(debiased_ece), *models, labels, n_resamples=60).verdict == "tie"
        )
    assert sum(ties) >= 15  # nine in ten in a simulation of 150; below 15 of 20 has 1 %


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], [2], "runs"), "n >= 2 runs"),
        (([1, 2], [2], "runs"), "same n"),
        (([1, math.nan], [2, 3], "runs"), "finite"),
        (([1, 2], [2, 3], "runs", 1.0), "level"),
    ],
)
def test_bad_pairs_of_runs_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(*arguments)


def test_bad_models_are_named():
    x = torch.zeros(3)
    with pytest.raises(ValueError, match="same samples, got 3, 2 and 3"):
        compare_models(lambda x, y: 0.0, x, x[:2], x)
    with pytest.raises(ValueError, match="n_resamples"):
        compare_models(lambda x, y: 0.0, x, x, x, n_resamples=1)
    with pytest.raises(ValueError, match="level"):
        compare_models(lambda x, y: 0.0, x, x, x, level=0)
