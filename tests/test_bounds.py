"""Every inequality of THEORY.md: it holds on hostile logits, it is tight, and it is computed right.

Three kinds of test. Property: logits of 2 to 1,000 classes, scales 1e-3 to 300, ties, margins of
±200, float32 and float64. Reference: 60-digit arithmetic and dense float64 matrices. Tightness: for
each constant a generated input on which a smaller constant would be false.

Bounds are float64 logarithms. A comparison "a <= b" allows 8 units in the last place of max(1, |b|)
(`ULPS`): each side is a handful of correctly rounded operations away from the logits.
"""

import copy
import decimal
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calibcourse.attacks import robust_margin
from calibcourse.bounds import (
    confidence_gap_bounds,
    curvature_ladder,
    direct_sandwich,
    ece_bounds,
    logit_hessian_bounds,
    mse_ladder,
    softmax_tail_bounds,
)
from calibcourse.curvature import ConvergenceWarning, GaussNewton
from calibcourse.margins import log_margin_moment, predicted_margin, true_margin
from calibcourse.metrics import (
    expected_calibration_error,
    mean_misconfidence,
    negative_log_likelihood,
)
from calibcourse.models import mlp

ULPS = 8 * torch.finfo(torch.float64).eps


def below(low, high):
    """Whether low <= high everywhere, up to 8 units in the last place; both are logarithms."""
    low, high = (torch.as_tensor(side, dtype=torch.float64) for side in (low, high))
    return bool((low <= high + ULPS * high.abs().clamp(min=1)).all())


STYLES = ("gaussian", "ties", "uniform", "one hot", "plus 200", "minus 200", "two groups")


def make_logits(n, k, style, scale, seed, dtype=torch.float64):
    """Logits and labels of a given style; labels are right, runner-up or random in turn."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, k, generator=generator, dtype=torch.float64)
    if style == "ties":
        z = z.round()
    elif style == "uniform":
        z = torch.zeros(n, k, dtype=torch.float64)
    elif style == "one hot":
        z = F.one_hot(torch.randint(k, (n,), generator=generator), k).double()
    elif style == "two groups":
        z = (z > 0).double()
    z = scale * z
    order = z.argsort(dim=1, descending=True, stable=True)
    chance = torch.randint(k, (n,), generator=generator)
    target = torch.stack([order[:, 0], order[:, 1], chance], 1)[
        torch.arange(n), torch.arange(n) % 3
    ]
    if style in ("plus 200", "minus 200"):
        sign = 1 if style == "plus 200" else -1
        z.scatter_(1, target[:, None], sign * 200.0)
    return z.to(dtype), target


@st.composite
def cases(draw, max_samples=7):
    return make_logits(
        n=draw(st.integers(1, max_samples)),
        k=draw(st.one_of(st.integers(2, 12), st.sampled_from([100, 1000]))),
        style=draw(st.sampled_from(STYLES)),
        scale=10 ** draw(st.floats(-3, math.log10(300))),
        seed=draw(st.integers(0, 2**20)),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
    )


def bank():
    """A fixed collection that holds every corner: for the tests of tightness."""
    for k in (2, 3, 10, 100):
        for style in STYLES:
            for scale in (1e-3, 1.0, 5.0, 30.0):
                yield make_logits(9, k, style, scale, seed=k)


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


# ---------------------------------------------------------------------------- B.1 to B.3, B.5, B.6


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


# ---------------------------------------------------------------------------- B.4


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


# ---------------------------------------------------------------------------- equality


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


# ---------------------------------------------------------------------------- tightness


def tail_half(z, y, c):
    keep = true_margin(z, y) >= 0
    return below((math.log(c) - true_margin(z, y))[keep], softmax_tail_bounds(z, y).log.value[keep])


def rivals(z, missing):
    return math.log(max(z.shape[1] - 1 - missing, 1))


def log_rest(z):
    return softmax_tail_bounds(z, z.argmax(1)).log.value


def interpolating(z):
    """The labels that make every prediction right, and the ECE bounds; None on ties."""
    y = z.argmax(1)
    return (
        (ece_bounds(z, y), log_margin_moment(true_margin(z, y)).item())
        if (true_margin(z, y).min() > 0)
        else None
    )


def ece_lower(z, c):
    found = interpolating(z)
    if found is None:
        return True
    bounds, log_q = found
    return below(math.log(c) + log_q - math.log1p(math.exp(-bounds.gamma)), bounds.log["ece"])


def ece_lower_in_k(z, c):
    found = interpolating(z)
    return found is None or below(found[1] - math.log(c * z.shape[1]), found[0].log["ece"])


def ece_upper(z, missing):
    found = interpolating(z)
    return found is None or below(found[0].log["ece"], rivals(z, missing) + found[1])


def log_p(z):
    return F.logsigmoid(-log_rest(z) + torch.log1p(-log_rest(z).exp()))


TIGHT = {
    # name: (holds(z, y, constant), the constant of the theorem, a smaller slack)
    "B.3⁺: e^{-m}/2": (tail_half, 0.5, 0.6),
    "B.3: (K-1)e^{-m}": (
        lambda z, y, d: below(
            softmax_tail_bounds(z, y).log.value, rivals(z, d) - true_margin(z, y)
        ),
        0,
        1,
    ),
    "B.3⁺: σ(log(K-1) - m)": (
        lambda z, y, d: below(
            softmax_tail_bounds(z, y).log.value, F.logsigmoid(rivals(z, d) - true_margin(z, y))
        ),
        0,
        1,
    ),
    "B.6: (K-1)e^{-m̂}": (
        lambda z, y, d: below(log_rest(z), rivals(z, d) - predicted_margin(z)),
        0,
        1,
    ),
    "B.4: 2(1 - p_max)": (
        lambda z, y, c: below(logit_hessian_bounds(z).log.value, math.log(c) + log_rest(z)),
        2.0,
        1.9,
    ),
    "B.4⁺: 2 max p(1 - p)": (
        lambda z, y, c: below(
            logit_hessian_bounds(z).log.value,
            math.log(c / 2) + logit_hessian_bounds(z).log.upper,
        ),
        2.0,
        1.9,
    ),
    "B.4⁺: 1/2": (
        lambda z, y, c: below(logit_hessian_bounds(z).log.value, math.log(c)),
        0.5,
        0.45,
    ),
    "B.4⁺: tr/(K-1)": (
        lambda z, y, d: below(
            logit_hessian_bounds(z).log.trace_upper - rivals(z, d),
            logit_hessian_bounds(z).log.value,
        ),
        0,
        1,
    ),
    "B.4⁺: tr": (
        lambda z, y, c: below(
            logit_hessian_bounds(z).log.value, math.log(c) + logit_hessian_bounds(z).log.trace_upper
        ),
        1.0,
        0.95,
    ),
    "B.4⁺: p_max(1 - p_max)": (
        lambda z, y, c: below(
            math.log(c) + logit_hessian_bounds(z).log.lower, logit_hessian_bounds(z).log.value
        ),
        1.0,
        1.1,
    ),
    "4.4: Q/(1 + e^{-γ})": (lambda z, y, c: ece_lower(z, c), 1.0, 1.1),
    "4.2: Q/K": (lambda z, y, c: ece_lower_in_k(z, c), 1.0, 0.9),
    "4.1: (K-1)Q": (lambda z, y, d: ece_upper(z, d), 0, 1),
}


@pytest.mark.parametrize("name", TIGHT)
def test_no_constant_can_be_smaller(name):
    holds, constant, smaller = TIGHT[name]
    inputs = list(bank())
    assert all(holds(z, y, constant) for z, y in inputs)
    assert not all(holds(z, y, smaller) for z, y in inputs)


# ---------------------------------------------------------------------------- ECE


@settings(max_examples=150)
@given(cases(max_samples=30), st.integers(1, 40), st.booleans())
def test_ece_bounds_hold(case, n_bins, attacked):
    logits, target = case
    margin = true_margin(logits.double(), target)
    drop = torch.rand(len(target), generator=torch.Generator().manual_seed(n_bins)) * 3
    robust = margin - drop if attacked else None
    bounds = ece_bounds(logits, target, n_bins, robust)
    assert bounds.holds
    assert bounds.gamma == margin.min().item()
    assert bounds.regime == ("interpolating" if bounds.gamma > 0 else "general")
    log, log_q = bounds.log, log_margin_moment(margin).item()
    k = logits.shape[1]
    names = ["ece", "gap", "error_probability", "upper", "paper_upper"]
    if bounds.gamma > 0:
        names = ["paper_lower", "lower", *names, "gamma_upper"]
        assert log["paper_lower"] == pytest.approx(log_q - math.log(k), abs=1e-12)
        assert log["gamma_upper"] == pytest.approx(math.log(k - 1) - bounds.gamma, abs=1e-12)
    else:
        assert {"paper_lower", "lower", "gamma_upper"} <= bounds.missing.keys()
        assert math.isnan(bounds.lower) and "needs γ > 0" in bounds.missing["lower"]
    assert log["paper_upper"] == pytest.approx(math.log(k - 1) + log_q, abs=1e-12)
    for low, high in itertools.pairwise(names):
        assert below(log[low], log[high]), (low, high)
    assert log["upper"] <= 0
    if attacked:
        assert below(log["upper"], log["robust_upper"])
        assert below(log["paper_upper"], log["paper_robust_upper"])
        assert below(log["robust_upper"], log["paper_robust_upper"])
    else:
        assert bounds.missing["robust_upper"] == "needs robust_margins"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ece_bounds_live_at_margins_of_200(dtype):
    y = torch.zeros(5, dtype=torch.int64)
    z = torch.zeros(5, 10, dtype=dtype)
    z[:, 0] = 200.0
    bounds = ece_bounds(z, y)
    # Q = e^-200; ECE = 9 e^-200.
    assert bounds.log["paper_lower"] == pytest.approx(-200 - math.log(10), rel=1e-12)
    assert bounds.log["lower"] == pytest.approx(-200, rel=1e-12)
    assert bounds.log["upper"] == pytest.approx(-200 + math.log(9), rel=1e-12)
    assert 0 < bounds.ece < 1e-85
    assert bounds.holds
    z[:, 0] = -200.0
    bounds = ece_bounds(z, y)
    assert bounds.log["paper_upper"] == pytest.approx(200 + math.log(9), rel=1e-12)
    assert bounds.upper == 1.0 and bounds.paper_upper == pytest.approx(9 * math.exp(200), rel=1e-12)
    z[:, 0] = -2000.0
    assert ece_bounds(z, y).paper_upper == math.inf
    assert "10^869.5" in repr(ece_bounds(z, y))


def test_robust_margins_of_other_samples_are_noticed():
    z, y = make_logits(6, 3, "gaussian", 3.0, seed=0)
    margin = true_margin(z, y)
    with pytest.raises(ValueError, match="robust_margins must not exceed the clean margins"):
        ece_bounds(z, y, robust_margins=margin.flip(0))
    with pytest.raises(ValueError, match=r"robust_margins must have shape \(6,\)"):
        ece_bounds(z, y, robust_margins=margin[:3])
    with pytest.raises(ValueError, match="robust_margins must not exceed"):
        ece_bounds(z, y, robust_margins=margin * math.nan)
    with pytest.raises(TypeError, match="robust_margins must be a"):
        ece_bounds(z, y, robust_margins=margin.tolist())
    # Rounding of another batch size is not another sample; the clean margin is then the lower one.
    bounds = ece_bounds(z, y, robust_margins=margin + 1e-6)
    assert bounds.log["paper_robust_upper"] == bounds.log["paper_upper"]


def test_slack_is_the_factor_lost():
    z, y = make_logits(20, 10, "gaussian", 4.0, seed=2)
    bounds = ece_bounds(z, z.argmax(1))
    slack = bounds.slack()
    assert slack.keys() == bounds.log.keys() - {"ece", "robust_upper", "paper_robust_upper"}
    assert slack["paper_upper"].step == pytest.approx(
        math.log10(bounds.paper_upper / bounds.upper), abs=1e-12
    )
    assert slack["paper_upper"].total == pytest.approx(
        math.log10(bounds.paper_upper / bounds.ece), abs=1e-12
    )
    assert slack["paper_lower"].step == pytest.approx(
        math.log10(bounds.lower / bounds.paper_lower), abs=1e-12
    )
    tail = softmax_tail_bounds(z, y)
    torch.testing.assert_close(tail.slack()["upper"], (tail.upper / tail.value).log10())
    torch.testing.assert_close(tail.slack()["paper_lower"], (tail.value / tail.paper_lower).log10())
    with pytest.raises(AttributeError, match="EceBounds has no rung or attribute 'u9'"):
        bounds.u9  # noqa: B018
    assert "lower" in dir(bounds) and copy.deepcopy(bounds).ece == bounds.ece
    with pytest.warns(DeprecationWarning, match="error_probability"):
        assert bounds.misconfidence == bounds.error_probability


# ---------------------------------------------------------------------------- the ladder


class Flatten8(nn.Module):
    """A convolution, BatchNorm with used statistics, and a linear head."""

    def __init__(self, k, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.head = nn.Linear(48, k)
        self.body(torch.rand(32, 1, 4, 4))  # in train mode: moves the running statistics

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


def network(kind, k, steps, dtype, seed=0):
    """A small network in eval mode, trained for some steps to memorise, with data and labels."""
    if kind == "mlp":
        model = mlp((1, 4, 4), hidden=(9, 6), n_classes=k, seed=seed)
    elif kind == "linear":
        model = mlp((1, 4, 4), hidden=(), n_classes=k, seed=seed)
    else:
        model = Flatten8(k, seed)
    model = model.to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(24, 1, 4, 4, generator=generator).to(dtype)
    target = torch.randint(k, (24,), generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), target).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, inputs, target


RUNGS = ["l4", "l3", "l2", "l1", "u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7"]


@pytest.mark.parametrize("kind", ["mlp", "linear", "convolution"])
@pytest.mark.parametrize("k", [2, 3, 10, 20])
@pytest.mark.parametrize(
    "steps, dtype", [(0, torch.float32), (25, torch.float64), (250, torch.float32)]
)
def test_the_whole_ladder_is_ordered(kind, k, steps, dtype):
    model, inputs, target = network(kind, k, steps, dtype)
    robust = robust_margin(model, inputs, target, 0.03, steps=3).margin
    state = {name: value.clone() for name, value in model.state_dict().items()}
    ladder = curvature_ladder(model, inputs, target, robust)
    assert [rung.name for rung in ladder.rungs] == RUNGS and not ladder.missing
    # λ_max is from below and right to tol² or so; float32 Jacobians are right to 1e-6.
    log = [ladder.log[name] for name in RUNGS]
    assert all(low <= high + 1e-4 for low, high in itertools.pairwise(log)), ladder
    assert ladder.holds and ladder.eigenpair.converged
    assert all(slack.total >= -1e-4 for slack in ladder.slack().values())
    sandwich = direct_sandwich(model, inputs, target, ladder=ladder)
    assert sandwich.holds and sandwich.lambda_max == ladder.u0
    # The model is as it was.
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not model.training


@pytest.mark.parametrize("kind", ["mlp", "convolution"])
@pytest.mark.parametrize("k", [2, 4])
def test_every_rung_equals_its_dense_definition(kind, k):
    model, inputs, target = network(kind, k, 20, torch.float64)
    robust = robust_margin(model, inputs, target, 0.03, steps=2).margin
    ladder = curvature_ladder(model, inputs, target, robust, tol=1e-7)

    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def logits_of(parameters, x):
        return torch.func.functional_call(model, parameters, (x[None],))[0]

    rows = torch.func.vmap(torch.func.jacrev(logits_of), (None, 0))(parameters, inputs)
    jacobian = torch.cat([part.flatten(2) for part in rows.values()], 2)
    z = model(inputs).detach()
    p = z.softmax(1)
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    curvature = jacobian.mT @ hessian @ jacobian

    def top(matrix):
        return torch.linalg.eigvalsh(matrix)[..., -1]

    norms = torch.linalg.matrix_norm(jacobian, 2).square()
    u, c2 = (1 - p.amax(1)).mean(), norms.max()
    last = sum(part.numel() for part in list(parameters.values())[-2:])
    wrong = 1 - p.gather(1, target[:, None])[:, 0]
    expected = {
        "u0": top(curvature.mean(0)),
        "u1": top(curvature).mean(),
        "u2": (norms * top(hessian)).mean(),
        "u3": c2 * top(hessian).mean(),
        "u4": 2 * c2 * u,
        "u5": 2 * c2 * wrong.mean(),
        "u6": 2 * c2 * (k - 1) * (-true_margin(z, target)).exp().mean(),
        "u7": 2 * c2 * (k - 1) * (-robust).exp().mean(),
        "l1": top(curvature.mean(0)[-last:, -last:]),
        "l2": top(hessian.mean(0)),
        "l3": hessian.mean(0).trace() / (k - 1),
        "l4": u / (k - 1),
    }
    for name in RUNGS:
        # u0 and l1 by Lanczos to a residual of 1e-7, hence 1e-12 or so; the rest is float64.
        assert getattr(ladder, name) == pytest.approx(expected[name].item(), rel=1e-9), name
    assert ladder.max_jacobian_norm == pytest.approx(c2.sqrt().item(), rel=1e-10)


def test_the_last_block_is_all_of_a_linear_network():
    model, inputs, target = network("linear", 5, 20, torch.float64)
    ladder = curvature_ladder(model, inputs, target, tol=1e-8)
    assert ladder.l1 == pytest.approx(ladder.u0, rel=1e-10)
    assert ladder.missing == {"u7": "needs robust_margins"} and math.isnan(ladder.u7)
    assert ladder.holds and "u7" not in ladder.slack()


def test_frozen_last_weights_leave_the_bias_block():
    model, inputs, target = network("mlp", 4, 20, torch.float64)
    model[-1].weight.requires_grad_(False)
    ladder = curvature_ladder(model, inputs, target, tol=1e-8)
    assert ladder.l1 == pytest.approx(ladder.l2, rel=1e-10)
    assert ladder.holds


def uniform_linear(k, bias=True):
    """z = 0 for every input: p is uniform, and only one direction of inputs is used."""
    model = nn.Linear(2, k, bias=bias).double()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model, 1e-3 * torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("k", [3, 10])
def test_lower_rungs_need_all_k_minus_one(k):
    model, inputs, target = uniform_linear(k)
    ladder = curvature_ladder(model, inputs, target)
    # Uniform: mean H_i has the eigenvalue 1/K, K-1 times; u = (K-1)/K. Inputs add 2e-6 to it.
    for name in ("l4", "l3", "l2", "l1", "u0"):
        assert getattr(ladder, name) == pytest.approx(1 / k, rel=3e-6)
    u = (k - 1) / k
    assert u / (k - 2) > ladder.l3 * 1.05  # with K-2 the rung would lie above its neighbour
    sandwich = direct_sandwich(model, inputs, target, ladder=ladder)
    assert sandwich.ece == pytest.approx(u) and sandwich.error_rate == 0
    assert sandwich.upper == pytest.approx(sandwich.ece, rel=3e-6)
    assert (k - 2) * ladder.u0 + sandwich.error_rate < sandwich.ece * 0.95


def test_without_an_output_bias_the_lower_rungs_would_be_false_and_are_missing():
    model, inputs, target = uniform_linear(4, bias=False)
    ladder = curvature_ladder(model, inputs, target)
    u = 3 / 4
    assert u / 3 > 1e4 * ladder.u0  # inputs of 1e-3: curvature 5e-7, and l4 would say 1/4
    reason = "the last layer has no trainable bias"
    assert {name: ladder.missing[name] for name in ("l1", "l2", "l3", "l4")} == dict.fromkeys(
        ("l1", "l2", "l3", "l4"), reason
    )
    assert math.isnan(ladder.l4) and ladder.holds
    assert f"not available: {reason}" in repr(ladder)
    sandwich = direct_sandwich(model, inputs, target)
    assert math.isnan(sandwich.upper) and sandwich.missing == reason and sandwich.holds
    assert reason in repr(sandwich)


@pytest.mark.parametrize(
    "breaks",
    [
        lambda model: model[-1].bias.requires_grad_(False),
        lambda model: model.append(nn.Tanh()),
        lambda model: model.append(nn.BatchNorm1d(4).double().eval()),
        lambda model: model.append(copy.deepcopy(nn.Linear(4, 4, bias=False)).double()),
        lambda model: model.append(nn.Linear(4, 4).double()).append(model[-1]),
    ],
    ids=["frozen bias", "tanh after it", "BatchNorm after it", "no bias", "layer used twice"],
)
def test_other_endings_of_a_network_are_seen(breaks):
    model, inputs, target = network("mlp", 4, 5, torch.float64)
    breaks(model)
    ladder = curvature_ladder(model, inputs, target)
    assert {"l1", "l2", "l3", "l4"} <= ladder.missing.keys() and ladder.holds


def test_an_identity_after_the_last_layer_changes_nothing():
    model, inputs, target = network("mlp", 4, 5, torch.float64)
    ladder = curvature_ladder(model, inputs, target)
    same = curvature_ladder(model.append(nn.Identity()).append(nn.Dropout().eval()), inputs, target)
    assert same.log["l1"] == pytest.approx(ladder.log["l1"], rel=1e-12)


def test_the_factor_two_of_u4_cannot_be_smaller():
    # One sample, two classes, sure: λ_max = ‖J‖² 2p(1-p), which tends to 2 C_J² u.
    model = nn.Linear(1, 2).double()
    model.weight.data, model.bias.data = (
        torch.tensor([[6.0], [0.0]]).double(),
        torch.zeros(2).double(),
    )
    inputs, target = torch.ones(1, 1).double(), torch.tensor([0])
    ladder = curvature_ladder(model, inputs, target)
    assert ladder.u0 <= ladder.u4 * (1 + 1e-9)
    assert ladder.u0 > ladder.u4 * 1.9 / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ladder_lives_at_margins_of_200(dtype):
    model = nn.Linear(3, 3).to(dtype)
    model.weight.data, model.bias.data = 200 * torch.eye(3).to(dtype), torch.zeros(3).to(dtype)
    inputs = torch.eye(3).to(dtype)
    right, wrong = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    ladder = curvature_ladder(model, inputs, right)
    # G = mean over samples of H ⊗ aaᵀ with a of length √2; H = e^-200 times numbers of order 1.
    assert ladder.holds and ladder.log["u0"] == pytest.approx(-200, abs=2)
    assert all(math.isfinite(ladder.log[name]) for name in RUNGS[:-1])
    assert 0 < ladder.u0 < 1e-86
    assert model.weight.dtype == dtype
    ladder = curvature_ladder(model, inputs, wrong)
    assert ladder.holds
    assert ladder.log["u6"] == pytest.approx(200 + math.log(2 * 2 * 2), rel=1e-6)


def test_a_warm_start_and_a_rough_end_are_both_honest():
    model, inputs, target = network("mlp", 10, 20, torch.float32)
    cold = curvature_ladder(model, inputs, target)
    warm = curvature_ladder(model, inputs, target, v0=cold.eigenpair.vector)
    assert warm.eigenpair.matvecs <= cold.eigenpair.matvecs
    assert warm.u0 == pytest.approx(cold.u0, rel=1e-4)
    with pytest.warns(ConvergenceWarning):
        rough = curvature_ladder(model, inputs, target, max_matvecs=1)
    assert "λ_max NOT converged" in repr(rough)


def test_train_mode_is_refused():
    model, inputs, target = network("convolution", 3, 0, torch.float32)
    for call in (curvature_ladder, direct_sandwich, lambda *args: mse_ladder(*args[:2])):
        with pytest.raises(ValueError, match=r"BatchNorm2d in train mode.*model\.eval\(\)"):
            call(model.train(), inputs, target)


# ---------------------------------------------------------------------------- the sandwich


@pytest.mark.parametrize("steps", [0, 10, 400])
@pytest.mark.parametrize("n_bins", [1, 15])
def test_the_sandwich_is_what_the_theorem_says(steps, n_bins):
    model, inputs, target = network("mlp", 5, steps, torch.float64)
    found = direct_sandwich(model, inputs, target, n_bins)
    ladder = curvature_ladder(model, inputs, target)
    z = model(inputs).detach()
    err = (z.argmax(1) != target).double().mean().item()
    u = mean_misconfidence(z).item()
    assert found.error_rate == pytest.approx(err, abs=1e-15)
    assert found.ece == pytest.approx(expected_calibration_error(z, target, n_bins).item())
    assert found.lower == pytest.approx(ladder.u0 / (2 * ladder.max_jacobian_norm**2) - err)
    assert found.upper == pytest.approx(4 * ladder.u0 + err)
    assert (found.inner_lower, found.inner_upper) == pytest.approx((abs(u - err), u + err))
    assert found.lower <= found.inner_lower <= found.ece + 1e-15
    assert found.ece <= found.inner_upper + 1e-15 <= found.upper + 1e-15
    assert found.holds
    if steps == 400:  # memorised: ECE is u, and curvature pins it down without labels
        assert err == 0 and found.ece == pytest.approx(u, rel=1e-12)


def test_the_error_rate_cannot_be_left_out():
    # Sure and wrong once, sure and right once, in bins of their own: ECE = u + err up to u.
    z = torch.tensor([[30.0, 0.0], [31.0, 0.0]], dtype=torch.float64)
    model = nn.Linear(2, 2).double()
    model.weight.data, model.bias.data = z.T.contiguous(), torch.zeros(2).double()
    found = direct_sandwich(model, torch.eye(2).double(), torch.tensor([0, 1]))
    assert found.error_rate == 0.5 and found.holds
    assert found.ece == pytest.approx(0.5, abs=1e-9)
    alone = direct_sandwich(model, torch.eye(2).double(), torch.tensor([1, 1]))
    assert alone.ece == pytest.approx(1.0) and alone.misconfidence < 1e-12
    assert alone.inner_upper - 0.1 * alone.error_rate < alone.ece


# ---------------------------------------------------------------------------- mean squared error


@pytest.mark.parametrize("kind", ["mlp", "linear", "convolution"])
@pytest.mark.parametrize("k", [2, 5])
def test_the_ladder_of_mean_squared_error(kind, k):
    model, inputs, _ = network(kind, k, 10, torch.float64)
    ladder = mse_ladder(model, inputs, tol=1e-8)
    assert [rung.name for rung in ladder.rungs] == ["l2", "l1", "u0", "u1", "u3"]
    log = [rung.log_value for rung in ladder.rungs]
    assert all(low <= high + 1e-9 for low, high in itertools.pairwise(log))
    assert ladder.holds and ladder.l2 == pytest.approx(2 / k, rel=1e-14)
    dense = GaussNewton(model, inputs, "mse").to_dense()
    assert ladder.u0 == pytest.approx(torch.linalg.eigvalsh(dense)[-1].item(), rel=1e-10)
    last = sum(p.numel() for p in list(model.parameters())[-2:])
    block = torch.linalg.eigvalsh(dense[-last:, -last:])[-1].item()
    assert ladder.l1 == pytest.approx(block, rel=1e-10)
    # tr G = (2/K) mean ‖J‖_F² lies between the mean of ‖J‖² and K times it.
    assert ladder.u1 <= dense.trace().item() * (1 + 1e-12) <= k * ladder.u1 * (1 + 1e-12)


def test_curvature_of_mean_squared_error_does_not_fade():
    model, inputs, target = network("linear", 5, 0, torch.float64)
    before, sure = mse_ladder(model, inputs), curvature_ladder(model, inputs, target)
    for parameter in model.parameters():
        parameter.data *= 100
    assert mse_ladder(model, inputs).u0 == pytest.approx(before.u0, rel=1e-6)
    assert curvature_ladder(model, inputs, target).u0 < 0.5 * sure.u0
    # At the one-hot logits that it aims for, the confidence is e/(e + K-1): 0.23 for K = 10.
    z, y = torch.eye(10), torch.arange(10)
    assert ece_bounds(z, y).ece == pytest.approx(1 - math.e / (math.e + 9), rel=1e-6)


# ---------------------------------------------------------------------------- refusals and display

Z, Y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("function", [softmax_tail_bounds, confidence_gap_bounds, ece_bounds])
@pytest.mark.parametrize(
    "logits, target, error, message",
    [
        (Z[0], Y, ValueError, "logits must have shape"),
        (Z[:, :1], Y, ValueError, "logits must have K >= 2"),
        (Z[:0], Y[:0], ValueError, "logits must hold at least one sample"),
        (Z / 0, Y, ValueError, "logits must be finite"),
        (Z.long(), Y, TypeError, "logits must have a floating dtype"),
        (Z, Y + 4, ValueError, r"target must lie in 0\.\.3"),
        (Z, Y[:2], ValueError, "target must have shape"),
        (Z, Y.int(), TypeError, "target must have dtype"),
    ],
)
def test_bad_arguments_are_named(function, logits, target, error, message):
    with pytest.raises(error, match=message):
        function(logits, target)


def test_other_bad_arguments_are_named():
    with pytest.raises(ValueError, match="logits must be finite"):
        logit_hessian_bounds(Z * math.nan)
    with pytest.raises(ValueError, match="n_bins must be at least 1"):
        ece_bounds(Z, Y, n_bins=0)
    model, inputs, target = network("mlp", 4, 0, torch.float32)
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.3"):
        curvature_ladder(model, inputs, target + 4)
    with pytest.raises(ValueError, match="inputs must be finite"):
        curvature_ladder(model, inputs / 0, target)
    with pytest.raises(ValueError, match="n_bins must be at least 1"):
        direct_sandwich(model, inputs, target, n_bins=0)


def test_display_shows_values_and_slack():
    model, inputs, target = network("mlp", 3, 5, torch.float32)
    ladder = curvature_ladder(model, inputs, target)
    lines = repr(ladder).splitlines()
    assert lines[0].startswith("Ladder(C_J=") and "holds=True" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == RUNGS[::-1]
    assert "[paper] Thm 4.1" in lines[2] and "× 10^+" in lines[2] and "× 10^-" in lines[-1]
    assert "ECE" in repr(direct_sandwich(model, inputs, target, ladder=ladder))
    assert repr(softmax_tail_bounds(Z, Y)).startswith("TailBounds(n=3, holds=True), mean:\n")


@pytest.mark.cuda
def test_bounds_agree_on_a_gpu():
    model, inputs, target = network("mlp", 5, 20, torch.float64)
    here = curvature_ladder(model, inputs, target)
    there = curvature_ladder(model.cuda(), inputs.cuda(), target.cuda())
    for name in RUNGS[:-1]:
        assert there.log[name] == pytest.approx(here.log[name], abs=1e-6)
    z, y = model(inputs.cuda()).detach(), target.cuda()
    assert softmax_tail_bounds(z, y).value.is_cuda and ece_bounds(z, y).holds
    assert logit_hessian_bounds(z).holds and confidence_gap_bounds(z, y).holds


# --- THEORY.md 4.5


@settings(max_examples=100)
@given(seed=st.integers(0, 10_000), n_classes=st.integers(2, 50), scale=st.floats(0.01, 30.0))
def test_ece_is_at_most_the_loss_and_at_least_p_min_times_it_where_all_are_right(
    seed, n_classes, scale
):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(40, n_classes, generator=generator, dtype=torch.float64)
    for target in (torch.randint(n_classes, (40,), generator=generator), logits.argmax(1)):
        ece = expected_calibration_error(logits, target)
        loss = negative_log_likelihood(logits, target)
        # ECE compares confidences, numbers of size 1 in float64: 1e-15 of them is rounding.
        assert ece <= loss * (1 + 1e-12) + 1e-15
    p_min = logits.softmax(1).amax(1).min()
    assert ece >= p_min * loss * (1 - 1e-12) - 1e-15
