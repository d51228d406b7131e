"""Streams of batches, the bootstrap, and what metrics refuse."""

import inspect
import itertools
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_cases import (
    DTYPES,
    SCALARS,
    sample,
)

from calibcourse.metrics import (
    CalibrationError,
    accuracy,
    bootstrap_interval,
    brier_score,
    confidence_and_correct,
    expected_calibration_error,
    kernel_calibration_error,
    maximum_calibration_error,
    mean_confidence,
    negative_log_likelihood,
    reliability_curve,
)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    n_bins=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
)
def test_any_split_gives_the_whole(seed, cuts, n_bins, dtype):
    logits, target = sample(200, 4, seed, dtype=dtype)
    edges = sorted({0, 200, *cuts})
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
    streamed, merged = CalibrationError(n_bins), CalibrationError(n_bins)
    for part in parts:
        streamed.update(logits[part], target[part])
        merged.merge(CalibrationError(n_bins).update(logits[part], target[part]))
    curve = reliability_curve(logits, target, n_bins)
    for metric in (streamed, merged):
        summary = metric.compute()
        assert summary.count == 200
        assert summary.accuracy == float(accuracy(logits, target))
        assert torch.equal(summary.curve.count, curve.count)
        assert torch.equal(summary.curve.edges, curve.edges)
        # The same addends in another order: 200 roundings of 1e-16, relative to sums of up to 200.
        for got, expected in (
            (
                summary.expected_calibration_error,
                expected_calibration_error(logits, target, n_bins),
            ),
            (summary.maximum_calibration_error, maximum_calibration_error(logits, target, n_bins)),
            (summary.mean_confidence, mean_confidence(logits)),
        ):
            assert got == pytest.approx(float(expected), rel=0, abs=1e-13)


def test_state_is_three_numbers_per_bin():
    metric = CalibrationError(n_bins=20)
    size = len(pickle.dumps(metric))
    for seed in range(5):
        metric.update(*sample(300, seed=seed))
    assert len(pickle.dumps(metric)) == size
    assert metric._totals.shape == (3, 20) and metric._totals.dtype == torch.float64


def test_batches_may_differ_in_type_and_number_of_classes():
    metric = CalibrationError()
    for seed, (n_classes, dtype) in enumerate([(3, torch.float64), (10, torch.float16)]):
        metric.update(*sample(50, n_classes, seed, dtype=dtype))
    assert metric.compute().count == 100


def test_reset_forgets():
    logits, target = sample(50)
    metric = CalibrationError().update(*sample(70, seed=3)).reset().update(logits, target)
    assert metric.compute().count == 50
    with pytest.raises(RuntimeError, match="update"):
        metric.reset().compute()


def test_a_refused_batch_leaves_the_state_alone():
    logits, target = sample(50)
    metric = CalibrationError().update(logits, target)
    before = metric._totals.clone()
    bad = logits.clone()
    bad[-1, 0] = math.nan
    with pytest.raises(ValueError, match="logits"):
        metric.update(bad, target)
    assert torch.equal(metric._totals, before)


def test_merge_refuses_what_does_not_fit_and_leaves_the_other_alone():
    one, other = CalibrationError(10), CalibrationError(10).update(*sample(40))
    before = other._totals.clone()
    one.merge(other).merge(other)
    assert one.compute().count == 80
    assert torch.equal(other._totals, before)
    with pytest.raises(ValueError, match="n_bins = 10, got 12"):
        one.merge(CalibrationError(12))
    with pytest.raises(TypeError, match="CalibrationError"):
        one.merge(3)


def test_reprs_are_short_and_rounded():
    logits, target = sample(500)
    summary = CalibrationError(5).update(logits, target).compute()
    assert "count=500" in repr(summary) and "tensor" not in repr(summary)
    curve = repr(summary.curve).splitlines()
    assert curve[0].startswith("ReliabilityCurve(5 bins, 500 samples")
    assert max(map(len, curve)) < 80
    assert "95 %" in repr(bootstrap_interval(accuracy, logits, target, n_resamples=10))


def test_bootstrap_of_a_share_has_the_binomial_spread():
    logits = torch.tensor([[1.0, 0.0]]).repeat(400, 1)
    target = torch.tensor([0] * 300 + [1] * 100)
    interval = bootstrap_interval(accuracy, logits, target, level=0.95, n_resamples=1000)
    spread = math.sqrt(0.75 * 0.25 / 400)
    assert interval.estimate == 0.75
    # 1,000 resamples place a 2.5 % quantile to about 7 % of the half-width; the share has steps of
    # 1/400, another 6 % of it.
    assert interval.high - 0.75 == pytest.approx(1.96 * spread, rel=0.2)
    assert 0.75 - interval.low == pytest.approx(1.96 * spread, rel=0.2)


def test_bootstrap_is_decided_by_its_seed_alone():
    logits, target = sample(60)
    one = bootstrap_interval(brier_score, logits, target, n_resamples=30, seed=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert bootstrap_interval(brier_score, logits, target, n_resamples=30, seed=1) == one
    assert torch.equal(torch.get_rng_state(), state)
    assert bootstrap_interval(brier_score, logits, target, n_resamples=30, seed=2) != one


def test_a_higher_level_gives_a_wider_interval():
    logits, target = sample(80)
    inner, outer = (
        bootstrap_interval(negative_log_likelihood, logits, target, level, n_resamples=200)
        for level in (0.5, 0.9)
    )
    assert outer.low < inner.low < inner.estimate < inner.high < outer.high


def test_bootstrap_takes_any_statistic():
    logits, target = sample(40)
    interval = bootstrap_interval(lambda z, y: 3.0, logits, target, n_resamples=5)
    assert (interval.low, interval.estimate, interval.high) == (3, 3, 3)


def test_bootstrap_of_ece_is_shifted_upwards():
    """What the docstring warns of: on a calibrated model, the interval's centre exceeds ECE."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 3, generator=generator) * 2
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    interval = bootstrap_interval(expected_calibration_error, logits, target, n_resamples=100)
    assert (interval.low + interval.high) / 2 > interval.estimate


GOOD = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])


BAD_INPUTS = {
    "logits not a tensor": ([[1.0, 0.0]], GOOD[1], TypeError, "logits"),
    "integer logits": (torch.ones(2, 2, dtype=torch.int64), GOOD[1], TypeError, "logits"),
    "rank 1": (torch.ones(2), GOOD[1], ValueError, "logits"),
    "rank 3": (torch.ones(2, 2, 1), GOOD[1], ValueError, "logits"),
    "no sample": (torch.ones(0, 2), torch.ones(0, dtype=torch.int64), ValueError, "logits"),
    "one class": (torch.ones(2, 1), torch.zeros(2, dtype=torch.int64), ValueError, "logits"),
    "nan": (torch.tensor([[1.0, 0.0], [math.nan, 1.0]]), GOOD[1], ValueError, "logits"),
    "inf": (torch.tensor([[1.0, 0.0], [math.inf, 1.0]]), GOOD[1], ValueError, "logits"),
    "-inf": (torch.tensor([[1.0, 0.0], [-math.inf, 1.0]]), GOOD[1], ValueError, "logits"),
    "labels of another length": (GOOD[0], torch.tensor([0]), ValueError, "target"),
    "labels of rank 2": (GOOD[0], torch.tensor([[0], [1]]), ValueError, "target"),
    "float labels": (GOOD[0], torch.tensor([0.0, 1.0]), TypeError, "target"),
    "int32 labels": (GOOD[0], torch.tensor([0, 1], dtype=torch.int32), TypeError, "target"),
    "negative label": (GOOD[0], torch.tensor([0, -1]), ValueError, "target"),
    "label K": (GOOD[0], torch.tensor([0, 2]), ValueError, "target"),
}


FUNCTIONS = {
    **SCALARS,
    "confidence_and_correct": confidence_and_correct,
    "reliability_curve": reliability_curve,
    "equal-mass ECE": lambda z, y: expected_calibration_error(z, y, binning="equal_mass"),
    "CalibrationError": lambda z, y: CalibrationError().update(z, y),
    "bootstrap_interval": lambda z, y: bootstrap_interval(accuracy, z, y),
}


def needs_labels(function) -> bool:
    """Whether it has to be given labels: not where `target` is only accepted."""
    target = inspect.signature(function).parameters.get("target")
    return target is None or target.default is inspect.Parameter.empty


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (name, fault)
        for name, function in FUNCTIONS.items()
        for fault, (_, _, _, argument) in BAD_INPUTS.items()
        if argument == "logits" or needs_labels(function)
    ],
)
def test_bad_input_is_named(name, fault):
    logits, target, error, argument = BAD_INPUTS[fault]
    with pytest.raises(error, match=f"^{argument} must"):
        FUNCTIONS[name](logits, target)


@pytest.mark.parametrize(
    "function", [reliability_curve, expected_calibration_error, maximum_calibration_error]
)
def test_bad_bins_are_named(function):
    for binning in ("equal_width", "equal_mass"):
        with pytest.raises(ValueError, match="n_bins"):
            function(*GOOD, 0, binning)
        with pytest.raises(TypeError, match="n_bins"):
            function(*GOOD, 2.0, binning)
    with pytest.raises(ValueError, match="equal_mass, equal_width"):
        function(*GOOD, binning="quantile")
    with pytest.raises(ValueError, match="n_bins"):
        CalibrationError(0)


@pytest.mark.parametrize("bandwidth", [0, -1.0, math.inf, math.nan])
def test_bad_bandwidth_is_named(bandwidth):
    with pytest.raises(ValueError, match="bandwidth"):
        kernel_calibration_error(*GOOD, bandwidth=bandwidth)


def test_bad_bootstrap_arguments_are_named():
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match="level"):
            bootstrap_interval(accuracy, *GOOD, level=level)
    with pytest.raises(ValueError, match="n_resamples"):
        bootstrap_interval(accuracy, *GOOD, n_resamples=0)
    with pytest.raises(ValueError, match="seed"):
        bootstrap_interval(accuracy, *GOOD, seed=-1)
