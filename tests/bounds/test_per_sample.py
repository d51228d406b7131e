"""Bounds of one sample: what B.1 to B.6 say holds, and where they are equalities."""

import decimal
import math

import pytest
import torch
from bounds_cases import (
    STYLES,
    below,
    cases,
    make_logits,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcourse.bounds import (
    confidence_gap_bounds,
    ece_bounds,
    logit_hessian_bounds,
    softmax_tail_bounds,
)
from calibcourse.margins import predicted_margin, true_margin
from calibcourse.metrics import (
    mean_misconfidence,
)


def lowest_top_class(logits):
    """ŷ with the lowest index on a tie, which `argmax` does not promise."""
    k = logits.shape[1]
    return torch.where(logits == logits.amax(1, keepdim=True), torch.arange(k), k).amin(1)


def exact_logs(row, label):
    """Logarithms of 1 - p_y and of 1 - p_max, to 60 digits."""
    with decimal.localcontext(prec=60):
        z = [decimal.Decimal(value) for value in row]
        weights = [(value - max(z)).exp() for value in z]
        total, top = sum(weights), weights.index(max(weights))
        wrong = sum(w for j, w in enumerate(weights) if j != label)
        rest = sum(w for j, w in enumerate(weights) if j != top)
        return float((wrong / total).ln()), float((rest / total).ln())


@settings(max_examples=150)
@given(cases())
def test_softmax_tail_band_holds(case):
    logits, target = case
    bounds, k = softmax_tail_bounds(logits, target), logits.shape[1]
    log, margin = bounds.log, true_margin(logits.double(), target)
    assert bounds.holds
    assert below(log.paper_lower, log.lower) and below(log.lower, log.value)
    assert below(log.value, log.upper) and below(log.upper, log.paper_upper)
    # The formulas of B.3, written with logaddexp: e^{-m}/(1 + (K-1)e^{-m}) and (K-1)e^{-m}.
    log_rivals = math.log(k - 1)
    zero = torch.zeros_like(margin)
    expected = -margin - torch.logaddexp(zero, log_rivals - margin)
    torch.testing.assert_close(log.paper_lower, expected, rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(log.paper_upper, log_rivals - margin, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(log.lower, -margin - torch.logaddexp(zero, -margin),
                               rtol=1e-13, atol=1e-12)  # fmt: skip
    # B.3⁺ says a half where B.3 says one in K.
    right = margin >= 0
    assert below((-margin - math.log(2))[right], log.lower[right])
    assert below((-margin - math.log(k))[right], log.paper_lower[right])
    assert (log.upper <= 0).all() and torch.isfinite(torch.stack([log.lower, log.upper])).all()


@settings(max_examples=60)
@given(cases(max_samples=3))
def test_values_equal_sixty_digit_arithmetic(case):
    logits, target = case
    tail = softmax_tail_bounds(logits, target).log.value
    exact = [exact_logs(z, y) for z, y in zip(logits.tolist(), target.tolist(), strict=True)]
    # One rounding of a gap z_j - z_y of up to 1,000 is 1e-13, and the logarithm inherits it.
    assert tail.tolist() == pytest.approx([wrong for wrong, _ in exact], rel=1e-13, abs=1e-12)
    free = softmax_tail_bounds(logits, logits.argmax(1)).log
    assert free.value.tolist() == pytest.approx([rest for _, rest in exact], rel=1e-13, abs=1e-12)
    # B.6: 1 - p_max <= (K-1) e^{-m̂}.
    rivals = math.log(logits.shape[1] - 1)
    assert below(free.value, rivals - predicted_margin(logits.double()))


@settings(max_examples=150)
@given(cases(), st.integers(1, 7), st.integers(0, 2**20))
def test_gap_bounds_hold_for_any_partition_into_bins(case, n_bins, seed):
    logits, target = case
    gaps = confidence_gap_bounds(logits, target)
    assert gaps.holds and below(gaps.log.value, gaps.log.upper)
    p = logits.double().softmax(1)
    right = (lowest_top_class(logits) == target).double()
    signed = right - p.amax(1)
    # The plain subtraction is the inexact side: it loses everything below 1e-16.
    torch.testing.assert_close(gaps.value, signed.abs(), rtol=1e-12, atol=1e-15)
    # B.1 and the two sides of 4.3, for bins that have nothing to do with the confidence.
    label = torch.randint(n_bins, target.shape, generator=torch.Generator().manual_seed(seed))
    error = sum(signed[label == b].sum().abs() for b in range(n_bins)) / len(signed)
    u, err = (1 - p.amax(1)).mean(), 1 - right.mean()
    assert error <= gaps.value.mean() + 1e-15 * 8
    assert abs(u - err) <= error + 1e-15 * 8 and error <= u + err + 1e-15 * 8


@settings(max_examples=150)
@given(cases())
def test_logit_hessian_bounds_hold(case):
    logits, _ = case
    bounds = logit_hessian_bounds(logits)
    log = bounds.log
    assert bounds.holds
    for low in (log.lower, log.trace_lower):
        assert below(low, log.value)
    for high in (log.upper, log.trace_upper, log.paper_upper):
        assert below(log.value, high)
    assert below(log.upper, log.paper_upper) and below(log.upper, -math.log(2.0))
    assert below(log.trace_lower + math.log(logits.shape[1] - 1), log.trace_upper)
    assert torch.isfinite(torch.stack([log.lower, log.value, log.upper])).all()
    # Each against its formula in plain probabilities. Their sum is 1 only up to K roundings of
    # 1e-16, and all that lies below is lost in 1 - p.
    lost = 4e-16 * logits.shape[1] + 1e-15
    p = logits.double().softmax(1)
    plain = {
        "lower": p.amax(1) * (1 - p.amax(1)),
        "upper": 2 * (p * (1 - p)).amax(1),
        "trace_upper": 1 - p.square().sum(1),
        "paper_upper": 2 * (1 - p.amax(1)),
    }
    for name, expected in plain.items():
        torch.testing.assert_close(getattr(bounds, name), expected, rtol=1e-11, atol=lost)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("k", [2, 3, 10, 60])
def test_top_eigenvalue_equals_the_dense_one(k, style):
    for scale in (1e-3, 1.0, 6.0):
        z, _ = make_logits(12, k, style, scale, seed=k)
        p = z.softmax(1)
        dense = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        expected = torch.linalg.eigvalsh(dense)[:, -1]
        # eigvalsh is right to 1e-16 of the norm of the matrix, which is at most 1/2.
        torch.testing.assert_close(logit_hessian_bounds(z).value, expected, rtol=0, atol=2e-15)


@pytest.mark.parametrize(
    "row",
    [
        [40.0, 0.0, 0.0],
        [92.0, 0.0, -1.0, 3.0],
        [200.0, 0.0, 0.5],
        [200.0, 199.0, -200.0, 7.0],
        [3.0, 3.0, 1.0],
        [3.0, 3.0 - 1e-9, 1.0],
        [5.0, 5.0, 5.0, -200.0],
    ],
)
def test_top_eigenvalue_keeps_its_relative_accuracy_where_it_is_tiny(row):
    import mpmath  # a dependency of torch's own

    with mpmath.workdps(250):
        weights = [mpmath.exp(mpmath.mpf(value)) for value in row]
        p = [w / sum(weights) for w in weights]
        dense = mpmath.diag(p) - mpmath.matrix(p) * mpmath.matrix(p).T
        exact = float(mpmath.log(max(mpmath.eigsy(dense, eigvals_only=True))))
    found = logit_hessian_bounds(torch.tensor([row])).log.value
    # The row is rounded to float32 when it enters; these rows are exact but for 1e-9, and there
    # the eigenvalue hardly moves.
    assert found.item() == pytest.approx(exact, rel=1e-13, abs=2e-8 if 3.0 - 1e-9 in row else 1e-14)


def test_two_classes_leave_no_slack():
    for margin in (-200.0, -3.0, 0.0, 0.5, 20.0, 200.0):
        z, y = torch.tensor([[margin, 0.0]]), torch.tensor([0])
        tail, hessian = softmax_tail_bounds(z, y).log, logit_hessian_bounds(z).log
        assert tail.paper_lower == tail.lower == tail.value == tail.upper
        # λ_max = tr = 2 p (1 - p); two correctly rounded sums apart.
        for bound in (hessian.trace_lower, hessian.upper, hessian.trace_upper):
            assert bound.item() == pytest.approx(hessian.value.item(), rel=1e-14)
        p = torch.tensor(margin, dtype=torch.float64).sigmoid()
        if abs(margin) < 30:
            assert hessian.value.exp().item() == pytest.approx((2 * p * (1 - p)).item(), rel=1e-12)


@pytest.mark.parametrize("k", [2, 3, 10, 1000])
def test_uniform_probabilities_meet_their_bounds(k):
    z, y = torch.zeros(1, k), torch.tensor([k - 1])
    tail, hessian = softmax_tail_bounds(z, y), logit_hessian_bounds(z)
    assert tail.value.item() == pytest.approx((k - 1) / k, rel=1e-14)
    assert tail.upper.item() == pytest.approx((k - 1) / k, rel=1e-14)
    assert tail.lower.item() == 0.5  # e^{-m}/2, whatever K is
    assert hessian.value.item() == pytest.approx(1 / k, rel=1e-13)
    assert hessian.trace_lower.item() == pytest.approx(1 / k, rel=1e-13)


@pytest.mark.parametrize("margin", [20.0, 200.0])
def test_the_one_hot_limit_meets_its_bounds(margin):
    equal_rivals = torch.tensor([[margin] + [0.0] * 9], dtype=torch.float64)
    tail = softmax_tail_bounds(equal_rivals, torch.tensor([0])).log
    # (K-1)e^{-m} is approached from above, by the relative amount (K-1)e^{-m} itself.
    assert tail.paper_upper.item() == pytest.approx(tail.value.item(), abs=10 * math.exp(-margin))
    one_rival = torch.tensor([[margin, 0.0] + [-500.0] * 8], dtype=torch.float64)
    tail = softmax_tail_bounds(one_rival, torch.tensor([0])).log
    assert tail.lower.item() == pytest.approx(tail.value.item(), rel=1e-14)
    hessian = logit_hessian_bounds(one_rival).log
    assert hessian.paper_upper.item() == pytest.approx(
        hessian.value.item(), abs=10 * math.exp(-margin)
    )


def test_the_gap_is_the_error_probability_where_the_prediction_is_right():
    z, _ = make_logits(30, 10, "gaussian", 20.0, seed=0)
    gaps = confidence_gap_bounds(z, z.argmax(1)).log
    assert torch.equal(gaps.value, gaps.upper)


@pytest.mark.parametrize("n_bins", [1, 2, 15, 1000])
def test_interpolating_ece_is_the_mean_misconfidence_for_any_bins(n_bins):
    z, _ = make_logits(50, 10, "gaussian", 5.0, seed=1)
    bounds = ece_bounds(z, z.argmax(1), n_bins)
    assert bounds.regime == "interpolating" and bounds.gamma > 0
    # A sum of 50 numbers in another order.
    for other in (bounds.gap, bounds.error_probability, mean_misconfidence(z).item()):
        assert bounds.ece == pytest.approx(other, rel=1e-13)


@pytest.mark.parametrize("margin", [1e-6, 1.0, 30.0])
def test_equal_margins_of_two_classes_meet_the_sharper_lower_bound(margin):
    z = torch.tensor([[margin, 0.0]] * 4, dtype=torch.float64)
    bounds = ece_bounds(z, torch.zeros(4, dtype=torch.int64))
    assert bounds.lower == pytest.approx(bounds.ece, rel=1e-14)
    assert bounds.upper == pytest.approx(bounds.ece, rel=1e-14)
