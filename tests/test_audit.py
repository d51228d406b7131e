"""The audit: what it measures and what it says of it; files are in test_audit_files.py."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import calibcourse as cc
from calibcourse.audit import Audit, audit, audit_figure, compare_audits, measure
from calibcourse.metrics import Interval, brier_decomposition, debiased_ece, ece_of_confidence
from calibcourse.metrics.intervals import resampled


def drawn(n_samples: int = 2000, scale: float = 1.0, n_classes: int = 5, seed: int = 0):
    """Logits whose labels are drawn from them; then the logits are multiplied by `scale`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n_samples, n_classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, target


def opposite_errors(n_samples: int = 4000):
    """Two confidences: 0.9, right 7 times of 10, and 0.6, right 8 times of 10."""
    half = n_samples // 2
    logits = torch.tensor([[0.9, 0.1]] * half + [[0.6, 0.4]] * half).log()
    right = torch.arange(half) % 10
    return logits, torch.cat([(right >= 7).long(), (right >= 8).long()])


SEED = 3  # not that of any default


@pytest.fixture
def too_sure() -> Audit:
    return audit(*drawn(scale=2.0), n_resamples=50, seed=SEED)


def read_by_halves(logits, target, seed):
    """Confidence and correctness, each half of a draw with the temperature of the other."""
    generator = torch.Generator().manual_seed(seed)
    halves = torch.randperm(len(target), generator=generator).tensor_split(2)
    scaled = logits.clone()
    for half, other in (halves, halves[::-1]):
        scaled[half] /= cc.TemperatureScaling().fit(logits[other], target[other]).temperature
    return cc.metrics.confidence_and_correct(scaled, target)


def test_its_numbers_are_those_of_the_metrics(too_sure):
    data = drawn(scale=2.0)
    confidence, correct = cc.metrics.confidence_and_correct(*data)
    assert (too_sure.n_samples, too_sure.n_classes) == (2000, 5)
    assert too_sure.floor.mean == cc.noise_floor(confidence, n_draws=50, seed=SEED).mean
    assert too_sure.debiased_ece == float(debiased_ece(confidence, correct))
    assert too_sure.brier == brier_decomposition(confidence, correct)
    assert too_sure.classwise_ece == float(cc.classwise_calibration_error(*data))
    assert too_sure.top_label_ece == float(cc.top_label_calibration_error(*data))
    assert repr(too_sure.classes) == repr(cc.class_over_confidence(*data, seed=SEED))
    assert too_sure.kce == float(cc.kernel_calibration_error(*data))
    assert too_sure.smooth_ece == float(cc.smooth_calibration_error(*data))
    with pytest.warns(DeprecationWarning, match="^Audit.gap is now over_confidence$"):
        assert too_sure.gap == too_sure.over_confidence
    assert too_sure.smallest_margin == cc.true_margin(*data).min().item()
    assert too_sure.temperature == cc.TemperatureScaling().fit(*data).temperature
    assert too_sure.negative_log_likelihood == float(cc.negative_log_likelihood(*data))
    assert too_sure.worst_percent_of_q == float(
        cc.margins.margin_moment_share(cc.true_margin(*data))
    )


def test_its_intervals_are_those_of_the_bootstrap(too_sure):
    """The same resamples; a mean or a 1 - c in float64 is rounded once more or less."""
    data = drawn(scale=2.0)
    for name, metric in (
        ("accuracy", cc.accuracy),
        ("over_confidence", lambda z, y: cc.mean_confidence(z) - cc.accuracy(z, y)),
        ("ece", cc.expected_calibration_error),
    ):
        theirs = cc.bootstrap_interval(metric, *data, n_resamples=50, seed=SEED)
        found = getattr(too_sure, name)
        ends = (found.low, found.estimate, found.high, found.level)
        expected = (theirs.low, theirs.estimate, theirs.high, 0.95)
        assert ends == pytest.approx(expected, abs=1e-12)

    # What is repaired, of samples that were scaled by halves once.
    before = cc.metrics.confidence_and_correct(*data)
    after = read_by_halves(*data, SEED)
    shares = []
    for rows in (slice(None), *resampled(2000, 50, SEED)):
        was, remains = (
            float(ece_of_confidence(confidence[rows], correct[rows]))
            for confidence, correct in (before, after)
        )
        shares.append(1 - remains / was)
    low, high = np.quantile(shares[1:], [0.025, 0.975])
    found = (too_sure.repaired.low, too_sure.repaired.estimate, too_sure.repaired.high)
    assert found == pytest.approx((low, shares[0], high), abs=1e-9)  # divided by an ECE
    assert too_sure.ece_rescaled == pytest.approx(float(ece_of_confidence(*after)), abs=1e-12)
    chance = cc.noise_floor(after[0], n_draws=50, seed=SEED).high
    assert too_sure.rescaled_by_chance == pytest.approx(chance, abs=1e-12)


def test_a_network_twice_too_sure_is_told_so_and_repaired_by_its_temperature(too_sure):
    # Labels come from the halved logits: T = 2 is right up to sampling (2,000 samples: a few %).
    assert too_sure.temperature == pytest.approx(2.0, rel=0.1)
    assert too_sure.ece_rescaled < too_sure.floor.high * 1.5 < too_sure.ece.estimate / 2
    said = " ".join(too_sure.findings())
    assert "Miscalibrated" in said and "Too sure on the whole." in said
    assert f"Dividing the logits by {too_sure.temperature:.3g}" in said
    for rescaled, verdict in ((0.0, "repairs what"), (0.4, "halves"), (0.6, "does not repair")):
        share = rescaled * too_sure.ece.estimate
        found = replace(too_sure, ece_rescaled=share, rescaled_by_chance=0.001)
        assert verdict in " ".join(found.findings())


def test_a_network_half_as_sure_as_right_is_told_so():
    found = audit(*drawn(scale=0.5), n_resamples=50)
    assert found.over_confidence.high < 0 and found.temperature < 1
    assert "Not sure enough on the whole." in found.findings()


def test_the_chance_level_is_what_a_calibrated_model_shows():
    """About one calibrated model in forty lies above its 95 % band."""
    found = [audit(*drawn(500, seed=seed), n_resamples=60) for seed in range(30)]
    above = [a for a in found if a.miscalibrated]
    # Binomial(30, 0.025): 5 or more have a probability below 0.001.
    assert len(above) < 5
    calm = next(a for a in found if a not in above)
    assert calm.findings()[0].startswith("No miscalibration seen: with 500 samples")
    assert not any("Dividing" in finding for finding in calm.findings())
    # The level falls with the samples, about as their square root.
    wide = audit(*drawn(8000), n_resamples=100).floor.high
    assert 2.5 < np.mean([a.floor.high for a in found]) / wide < 6.5


def test_errors_of_opposite_sign_are_not_taken_for_calibration():
    found = audit(*opposite_errors(), n_resamples=50)
    # 0.2 too sure on one half, 0.2 not sure enough on the other: the average is 0, the ECE 0.2.
    assert found.over_confidence.estimate == pytest.approx(0, abs=1e-6)  # float32 logarithms
    assert found.ece.estimate == pytest.approx(0.2, abs=1e-6)
    said = " ".join(found.findings())
    assert "Miscalibrated" in said and "errors of opposite sign cancel" in said
    assert "One temperature does not repair it" in said


def test_a_cap_is_never_lost():
    """Labels that are all right, and labels below average: no temperature is recommended."""
    logits, _ = drawn(400, n_classes=3)
    right = audit(logits, logits.argmax(1), n_resamples=20)
    mostly = logits.argmax(1)
    mostly[:290] = logits.argmin(1)[:290]
    wrong = audit(logits, mostly, n_resamples=20)
    for found in (right, wrong):
        assert found.capped and "capped: no temperature is best" in repr(found)
        assert found.to_dict()["capped"]
        assert not any("Dividing" in finding for finding in found.findings())
    assert right.miscalibrated and "No temperature is best" in " ".join(right.findings())


def test_shuffled_labels_are_asked_about():
    logits, target = drawn(1000)
    found = audit(logits, target.roll(1), n_resamples=50)
    assert found.near_chance and len(found.findings()) == 1
    assert "are labels and rows in one order" in found.findings()[0]
    assert found.chance_accuracy == pytest.approx(0.2, abs=0.01)
    # A model that always says one class: any order gives the same accuracy, and is not asked about.
    logits = torch.tensor([[3.0, 0.0]]).repeat(100, 1)
    one_class = audit(logits, (torch.arange(100) % 10 == 0).long(), n_resamples=50)
    assert not one_class.near_chance


def test_classes_that_cancel_are_named():
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([[1.4, 0.0], [0.0, 1.4]]).repeat(1000, 1)
    right = torch.rand(2000, generator=generator) < torch.tensor([0.7, 0.9]).repeat(1000)
    found = audit(logits, torch.where(right, logits.argmax(1), logits.argmin(1)), n_resamples=50)
    assert not found.miscalibrated and found.top_label_ece > 0.08
    said = " ".join(found.findings())
    assert "2 classes are off by more than chance explains" in said and "0 (+0.1" in said
    assert "of little use to choose by" in said


def test_two_models_on_the_same_samples():
    """Differences by hand; three means have the normal interval of a paired difference."""
    logits, target = drawn(2000)
    other, _ = drawn(2000, seed=1)
    mixed = logits + 0.5 * other
    found = compare_audits(3 * logits, mixed, target, n_resamples=400)
    p = [torch.softmax(z, 1) for z in (3 * logits, mixed)]
    right = [(q.argmax(1) == target).double() for q in p]
    per_sample = {
        "accuracy": right[0] - right[1],
        "confidence - accuracy": (p[0].amax(1) - right[0]) - (p[1].amax(1) - right[1]),
        "negative log-likelihood": (p[1] / p[0])[range(2000), target].log(),
    }
    assert list(found.differences) == [
        "accuracy", "confidence - accuracy", "debiased ECE", "negative log-likelihood"
    ]  # fmt: skip
    for name, values in per_sample.items():
        interval = found.differences[name].difference
        assert interval.estimate == pytest.approx(values.mean().item(), abs=1e-12)  # float64 means
        # 400 resamples know a standard deviation to 3.5 %; four times that.
        half = 1.96 * values.std().item() / 2000**0.5
        assert interval.high - interval.estimate == pytest.approx(half, rel=0.15)
        assert interval.level == 0.95
    ece = [debiased_ece(q.amax(1), r > 0) for q, r in zip(p, right, strict=True)]
    difference = found.differences["debiased ECE"].difference.estimate
    assert difference == pytest.approx(float(ece[0] - ece[1]), abs=1e-12)
    assert found.verdict("debiased ECE") == "first is larger" and found.differ


def test_two_models_are_in_the_noise_where_each_audit_says_so():
    """Bands of the same seed and size as in the audit of each model."""
    logits, target = drawn(100)
    pair = logits, 1.02 * logits
    seen = set()
    for seed in range(6):  # two draws: each seed has another band
        calm = [not audit(z, target, n_resamples=2, seed=seed).miscalibrated for z in pair]
        found = compare_audits(*pair, target, n_resamples=2, seed=seed)
        assert found.both_in_noise == all(calm)
        seen.add(found.both_in_noise)
    assert seen == {False, True}
    # Sure of everything and right: an ECE of 0, in a band from 0 to 0.
    logits, target = torch.tensor([[1000.0, 0.0]]).repeat(10, 1), torch.zeros(10, dtype=torch.int64)
    assert compare_audits(logits, logits, target, n_resamples=2).both_in_noise


def test_two_models_are_compared_by_200_resamples_of_a_seed():
    logits, target = drawn(100)
    pair = 3 * logits, logits.flip(0)
    found = compare_audits(*pair, target)
    assert found == compare_audits(*pair, target, n_resamples=200, seed=0)
    another = compare_audits(*pair, target, seed=1)
    assert all(another.differences[name] != found.differences[name] for name in found.differences)


def test_shift_and_order_do_not_matter():
    """Every sample's logits shifted by its own constant: all but the rounding stays."""
    logits, target = drawn(400)
    one = audit(logits, target, n_resamples=10)
    other = audit(logits + torch.arange(400.0)[:, None], target, n_resamples=10)
    for name in ("kce", "temperature", "ece_rescaled", "worst_percent_of_q", "smallest_margin"):
        # Shifts up to 400 cost three of sixteen digits.
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 2), torch.zeros(3)),
         "target must have dtype torch.int64, got torch.float32"),
        ((torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)),
         "logits must hold at least 2 samples, got 1"),
        ((*drawn(10), 0), "n_resamples must be at least 1, got 0"),
        ((*drawn(10), 5, 2**63), f"seed must be below 2**63, got {2**63}"),
        ((*drawn(10), 5, -1), "seed must be at least 0, got -1"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        audit(*arguments)


def test_it_takes_200_resamples_of_seed_0_unless_told_otherwise():
    data = drawn(100)
    assert audit(*data).to_dict() == audit(*data, n_resamples=200, seed=0).to_dict()
    assert audit(*data).accuracy != audit(*data, seed=1).accuracy


def test_chance_is_that_of_labels_dealt_out_anew():
    """Predicted 0 0 0 1 and true 0 3 3 1 of four classes: 3/4 · 1/4 + 1/4 · 1/4."""
    logits = torch.tensor([[2.0, 0.0, 0.0, 0.0]] * 3 + [[0.0, 2.0, 0.0, 0.0]])
    found = audit(logits, torch.tensor([0, 3, 3, 1]), n_resamples=5)
    assert found.chance_accuracy == 0.25


def test_two_samples_that_are_sure_and_right_have_nothing_to_repair():
    logits = torch.tensor([[0.0, 1000.0], [1000.0, 0.0]])
    found = audit(logits, torch.tensor([1, 0]), n_resamples=5)
    assert found.ece.estimate == 0 and not found.miscalibrated
    assert found.repaired == Interval(0.0, 0.0, 0.0, 0.95)


@pytest.mark.parametrize(("limit", "n_rows"), [(14, 2), (4, 1)])
def test_few_logits_are_worked_on_at_a_time(limit, n_rows, monkeypatch):
    """In double precision: blocks of whole samples, and the numbers of one block."""
    logits, target = drawn(51)
    whole = audit(logits.float(), target, n_resamples=2)
    seen = []

    def spied(function):
        def call(values, labels):
            if values.dtype == torch.float64:
                seen.append(values.shape)
            return function(values, labels)

        return call

    monkeypatch.setattr(measure, "_ROWS", limit)
    for name in ("true_margin", "confidence_and_correct"):
        monkeypatch.setattr(measure, name, spied(getattr(measure, name)))
    blocks = audit(logits.float(), target, n_resamples=2)
    assert set(seen) <= {(n_rows, 5), (1, 5)} and sum(n for n, _ in seen) == 2 * 51
    for name in ("smallest_margin", "worst_percent_of_q", "ece_rescaled"):
        # Vectors of other lengths are added up in another order.
        assert getattr(blocks, name) == pytest.approx(getattr(whole, name), rel=1e-12)


def test_the_figure_has_both_panels():
    left, right = audit_figure(*drawn(300)).axes
    assert left.get_ylabel() == "accuracy" and "true margin" in right.get_xlabel()
