"""Metrics: bins, closed forms, predictions, dtypes, invariances."""

import math

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
    binned,
    brier_score,
    confidence_and_correct,
    expected_calibration_error,
    kernel_calibration_error,
    maximum_calibration_error,
    mean_confidence,
    mean_misconfidence,
    negative_log_likelihood,
    reliability_curve,
    smooth_calibration_error,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_edge_of_every_number_of_bins(dtype):
    """k/n_bins belongs to the bin it closes, its upper neighbour among floats to the next one."""
    for n_bins in range(1, 101):
        edges = binned.equal_width_edges(n_bins)
        assert edges.tolist() == [k / n_bins for k in range(n_bins + 1)]
        k = torch.arange(n_bins + 1, dtype=torch.int32)
        on_edge = torch.tensor([k / n_bins for k in range(n_bins + 1)], dtype=dtype)
        above = torch.nextafter(on_edge, torch.full_like(on_edge, 2))[:-1]
        below = torch.nextafter(on_edge, torch.full_like(on_edge, -1))[1:]
        assert torch.equal(binned.bin_index(on_edge, edges), (k - 1).clamp(min=0))
        assert torch.equal(binned.bin_index(above, edges), k[:-1])
        assert torch.equal(binned.bin_index(below, edges), k[:-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_tied", range(1, 13))
def test_ties_put_confidence_exactly_on_an_edge(n_tied, dtype):
    """m equal logits above the rest give confidence 1/m, which is edge 1/m of m, 2m, ... bins."""
    logits = torch.full((1, 12), -1000.0, dtype=dtype)
    logits[0, :n_tied] = 5
    for multiple in (1, 2, 3, 7):
        curve = reliability_curve(logits, torch.tensor([0]), n_bins=multiple * n_tied)
        assert curve.count.nonzero().item() == multiple - 1
        assert curve.edges[multiple] == 1 / n_tied


def test_certainty_counts_in_the_last_bin():
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    curve = reliability_curve(logits, torch.tensor([0, 0]), n_bins=15)
    assert curve.count.tolist() == [0] * 14 + [2]
    assert curve.confidence[-1] == 1
    assert curve.accuracy[-1] == 0.5


def test_empty_bins_are_nan_and_say_nothing():
    curve = reliability_curve(torch.tensor([[3.0, 0.0]]), torch.tensor([0]), n_bins=4)
    for values in (curve.confidence, curve.accuracy, curve.over_confidence):
        assert values.isnan().tolist() == [True, True, True, False]
    assert maximum_calibration_error(torch.tensor([[3.0, 0.0]]), torch.tensor([0])) > 0
    assert len(repr(curve).splitlines()) == 3  # title, head, one bin


def test_curve_adds_up_to_the_errors():
    logits, target = sample(500)
    for binning in ("equal_width", "equal_mass"):
        curve = reliability_curve(logits, target, 10, binning)
        filled = curve.count > 0
        gap = (curve.accuracy - curve.confidence)[filled]
        assert curve.count.sum() == 500
        # Two roundings of 1e-16 in the subtraction that the curve avoids.
        torch.testing.assert_close(curve.over_confidence[filled], -gap, rtol=0, atol=1e-15)
        with pytest.warns(DeprecationWarning, match="over_confidence"):
            assert torch.equal(curve.gap[filled], -curve.over_confidence[filled])
        ece = (curve.count[filled] / 500 * gap.abs()).sum()
        torch.testing.assert_close(expected_calibration_error(logits, target, 10, binning), ece)
        mce = gap.abs().max()
        torch.testing.assert_close(maximum_calibration_error(logits, target, 10, binning), mce)


@pytest.mark.parametrize("n_bins", [1, 2, 7, 100, 101, 1000])
def test_equal_mass_bins_hold_equal_numbers(n_bins):
    logits, target = sample(101, dtype=torch.float64)
    curve = reliability_curve(logits, target, n_bins, "equal_mass")
    assert set(curve.count.tolist()) <= {101 // n_bins, -(-101 // n_bins)}
    assert curve.edges[0] == 0 and curve.edges[-1] == 1
    assert (curve.edges.diff() >= 0).all()


def test_equal_mass_bins_never_part_equal_confidences():
    logits = torch.tensor([[2.0, 0.0]] * 7 + [[3.0, 0.0]] * 2)
    target = torch.tensor([0, 1, 0, 1, 0, 0, 0, 0, 1])
    for order in (torch.arange(9), torch.arange(8, -1, -1)):
        curve = reliability_curve(logits[order], target[order], 4, "equal_mass")
        assert sorted(curve.count.tolist()) == [0, 0, 2, 7]


def test_one_bin_compares_accuracy_with_mean_confidence():
    logits, target = sample(300)
    difference = (accuracy(logits, target) - mean_confidence(logits)).abs()
    for binning in ("equal_width", "equal_mass"):
        torch.testing.assert_close(
            expected_calibration_error(logits, target, 1, binning), difference
        )


def test_one_sample():
    logits = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)  # p = (3/4, 1/4)
    right, wrong = torch.tensor([0]), torch.tensor([1])
    for metric in (
        expected_calibration_error,
        maximum_calibration_error,
        kernel_calibration_error,
        smooth_calibration_error,
    ):
        # smECE sums 16,384 cells that were through a Fourier transform: rounding of 1e-13.
        assert float(metric(logits, right)) == pytest.approx(1 / 4, rel=1e-12)
        assert float(metric(logits, wrong)) == pytest.approx(3 / 4, rel=1e-12)
    assert float(negative_log_likelihood(logits, right)) == pytest.approx(math.log(4 / 3))
    assert float(negative_log_likelihood(logits, wrong)) == pytest.approx(math.log(4))
    assert float(brier_score(logits, right)) == pytest.approx(2 / 16)
    assert float(brier_score(logits, wrong)) == pytest.approx(2 * 9 / 16)


@pytest.mark.parametrize("n_bins", [1, 5, 15, 100])
@pytest.mark.parametrize("margin", [0.5, 5.0, 18.0, 40.0, 85.0])
def test_all_right_gives_the_mean_misconfidence(margin, n_bins):
    """Where every prediction is right, ECE = u, also where float32 confidence is exactly 1."""
    logits = torch.zeros(40, 3)
    logits[:, 1] = margin + torch.arange(40) / 100
    target = torch.ones(40, dtype=torch.int64)
    rest = [2 * math.exp(-z) for z in logits[:, 1].tolist()]
    u = sum(s / (1 + s) for s in rest) / 40
    # float32: z - z_max is rounded to 6e-8 relative, which exp multiplies by the margin.
    for value in (
        mean_misconfidence(logits),
        expected_calibration_error(logits, target, n_bins),
        expected_calibration_error(logits, target, n_bins, "equal_mass"),
        smooth_calibration_error(logits, target),
    ):
        assert float(value) == pytest.approx(u, rel=1e-5, abs=0)
    nll = sum(math.log1p(s) for s in rest) / 40
    assert float(negative_log_likelihood(logits, target)) == pytest.approx(nll, rel=1e-5, abs=0)
    # Squares of float32 numbers end at 1e-45.
    brier = sum(1.5 * (s / (1 + s)) ** 2 for s in rest) / 40
    assert float(brier_score(logits, target)) == pytest.approx(brier, rel=1e-5, abs=1e-40)


def test_all_wrong_gives_the_mean_confidence():
    logits, _ = sample(200)
    target = (logits.argmax(1) + 1) % 10
    for metric in (expected_calibration_error, smooth_calibration_error):
        # Both sides are sums of the same float64 numbers.
        assert float(metric(logits, target)) == pytest.approx(
            float(mean_confidence(logits)), rel=1e-12
        )
    assert accuracy(logits, target) == 0


def test_a_useless_model_can_be_perfectly_calibrated():
    """The class prior as constant prediction: every calibration error is 0, no image is told."""
    logits, target = torch.zeros(10, 2), torch.tensor([0, 1] * 5)
    for metric in (
        expected_calibration_error,
        maximum_calibration_error,
        kernel_calibration_error,
        smooth_calibration_error,
    ):
        # smECE returns its bandwidth's resolution, 2^-30, where there is nothing to smooth.
        assert float(metric(logits, target)) <= 1e-9
    assert float(brier_score(logits, target)) == 0.5


def test_certain_and_wrong_is_the_worst():
    logits, target = torch.tensor([[0.0, 2000.0, 0.0]]), torch.tensor([0])
    assert expected_calibration_error(logits, target) == 1
    assert kernel_calibration_error(logits, target) == 1
    assert brier_score(logits, target) == 2
    assert negative_log_likelihood(logits, target) == 2000


def test_means_of_the_definition():
    """Nothing but exp and sums in float64, sample by sample."""
    logits, target = sample(50, dtype=torch.float64)
    confidence, misconfidence, nll, brier = [], [], [], []
    for z, y in zip(logits.tolist(), target.tolist(), strict=True):
        total = math.fsum(math.exp(value) for value in z)
        p = [math.exp(value) / total for value in z]
        confidence.append(max(p))
        misconfidence.append(math.fsum(sorted(p)[:-1]))
        nll.append(-math.log(p[y]))
        brier.append(math.fsum((p[k] - (k == y)) ** 2 for k in range(10)))
    for value, expected in (
        (mean_confidence(logits), confidence),
        (mean_misconfidence(logits), misconfidence),
        (negative_log_likelihood(logits, target), nll),
        (brier_score(logits, target), brier),
    ):
        assert value.dtype == torch.float64
        assert float(value) == pytest.approx(math.fsum(expected) / 50, rel=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_lowest_index_wins_a_tie(dtype):
    for pattern in (
        [1, 1, 0, 0],
        [0, 1, 1, 1],
        [0, 0, 1, 1],
        [1, 0, 0, 1],
        [1, 1, 1, 1],
        [0, 0, 0, 1],
    ):
        logits = torch.tensor([pattern] * 4, dtype=dtype)
        _, correct = confidence_and_correct(logits, torch.arange(4))
        assert correct.nonzero().flatten().tolist() == [pattern.index(1)]


def test_the_smallest_difference_decides():
    """Logits one float apart have equal exponentials, but one of them is larger."""
    for dtype in (torch.float32, torch.float64):
        one = torch.tensor(1e-3, dtype=dtype)
        logits = torch.stack([one, torch.nextafter(one, 2 * one), one]).repeat(3, 1)
        assert torch.equal((logits - logits[0, 1]).exp(), torch.ones(3, 3, dtype=dtype))
        _, correct = confidence_and_correct(logits, torch.arange(3))
        assert correct.tolist() == [False, True, False]


@pytest.mark.parametrize("n_classes", [10, 31, 37])
def test_confidence_does_not_depend_on_the_label_or_on_the_neighbours(n_classes):
    """To the last bit: a batch of any size, any label, any place in the batch."""
    logits, target = sample(1000, n_classes, scale=1.0)
    whole, _ = confidence_and_correct(logits, target)
    other, _ = confidence_and_correct(logits, (target + 1) % n_classes)
    alone = torch.cat([confidence_and_correct(logits[i : i + 1], target[:1])[0] for i in range(99)])
    pieces = torch.cat([confidence_and_correct(z, target[: len(z)])[0] for z in logits.split(61)])
    assert torch.equal(whole, other)
    assert torch.equal(whole[:99], alone)
    assert torch.equal(whole, pieces)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SCALARS)
def test_half_precision_is_widened_not_rounded(name, dtype):
    logits, target = sample(300, dtype=dtype)
    assert SCALARS[name](logits, target) == SCALARS[name](logits.float(), target)


@pytest.mark.parametrize("dtype", DTYPES)
def test_result_types(dtype):
    logits, target = sample(20, dtype=dtype)
    confidence, correct = confidence_and_correct(logits, target)
    assert confidence.dtype == torch.promote_types(dtype, torch.float32)
    assert correct.dtype == torch.bool
    for function in SCALARS.values():
        value = function(logits, target)
        assert value.dtype == torch.float64 and value.ndim == 0
    curve = reliability_curve(logits, target)
    assert curve.count.dtype == torch.int64
    assert curve.confidence.dtype == curve.accuracy.dtype == curve.edges.dtype == torch.float64


@pytest.mark.parametrize("name", SCALARS)
def test_layout_does_not_matter_and_inputs_stay_as_they_are(name):
    logits, target = sample(64)
    expected = SCALARS[name](logits, target)
    kept = logits.clone(), target.clone()
    column_major = logits.t().contiguous().t()
    strided = torch.stack([logits, logits + 1], 2)[..., 0]
    for view in (column_major, strided, logits.clone().requires_grad_()):
        result = SCALARS[name](view, target)
        assert result == expected and not result.requires_grad
    every_second = torch.stack([target, target], 1)[:, 0]
    assert SCALARS[name](logits, every_second) == expected
    assert torch.equal(logits, kept[0]) and torch.equal(target, kept[1])


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), n_samples=st.integers(1, 60), n_classes=st.integers(2, 8))
def test_order_of_the_samples_does_not_matter(seed, n_samples, n_classes):
    logits, target = sample(n_samples, n_classes, seed)
    order = torch.randperm(n_samples, generator=torch.Generator().manual_seed(seed))
    for function in SCALARS.values():
        # Sums in another order; smECE and KCE may cancel to 0, hence the absolute part.
        torch.testing.assert_close(
            function(logits[order], target[order]), function(logits, target), rtol=1e-10, atol=1e-14
        )
    for binning in ("equal_width", "equal_mass"):
        one = reliability_curve(logits, target, 7, binning)
        other = reliability_curve(logits[order], target[order], 7, binning)
        assert torch.equal(one.count, other.count) and torch.equal(one.edges, other.edges)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), shift=st.integers(-1000, 1000))
def test_a_constant_added_to_the_logits_changes_nothing(seed, shift):
    """Exactly, where the addition itself is exact: multiples of 1/64, far below 2^24."""
    logits, target = sample(30, 5, seed)
    logits = (logits * 64).round() / 64
    for function in SCALARS.values():
        assert function(logits + shift, target) == function(logits, target)


def test_the_order_of_the_classes_does_not_matter():
    logits, target = sample(200)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    relabelled = order.argsort()[target]
    for function in SCALARS.values():
        # float32 sums over classes in another order: one or two units in the last place of each c.
        torch.testing.assert_close(
            function(logits[:, order], relabelled), function(logits, target), rtol=1e-6, atol=1e-8
        )


def test_repeating_the_data_changes_nothing():
    logits, target = sample(150)
    for name, function in SCALARS.items():
        torch.testing.assert_close(
            function(logits.repeat(3, 1), target.repeat(3)),
            function(logits, target),
            rtol=1e-10,  # summation order
            atol=0,
            msg=name,
        )


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_agrees_with_cpu(dtype):
    logits, target = sample(3000, dtype=dtype)
    logits[::7, 3] = logits[::7].amax(1)  # ties
    target[::14] = 3
    on_gpu = logits.cuda(), target.cuda()
    for function in SCALARS.values():
        result = function(*on_gpu)
        assert result.device == on_gpu[0].device
        # exp differs in the last place between the two: 1e-7 in float32 arithmetic; a confidence
        # at an edge may change its bin, which moves ECE by the change in its own difference only.
        torch.testing.assert_close(result.cpu(), function(logits, target), rtol=1e-5, atol=1e-7)
    _, correct = confidence_and_correct(*on_gpu)
    assert torch.equal(correct.cpu(), confidence_and_correct(logits, target)[1])
    both = CalibrationError().update(logits, target).update(*on_gpu).compute()
    assert both.count == 6000
