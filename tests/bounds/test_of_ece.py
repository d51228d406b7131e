"""Bounds of ECE and the sandwich."""

import copy
import itertools
import math

import pytest
import torch
from bounds_cases import (
    below,
    cases,
    make_logits,
    network,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calibcourse.bounds import (
    curvature_ladder,
    direct_sandwich,
    ece_bounds,
    softmax_tail_bounds,
)
from calibcourse.margins import log_margin_moment, true_margin
from calibcourse.metrics import (
    expected_calibration_error,
    mean_misconfidence,
    negative_log_likelihood,
)


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
    message = (
        r"^robust_margins must not exceed the clean margins: were they measured on the same "
        r"samples, in the same order, with the same model\?$"
    )
    with pytest.raises(ValueError, match=message):
        ece_bounds(z, y, robust_margins=margin.flip(0))
    with pytest.raises(ValueError, match=r"robust_margins must have shape \(6,\)"):
        ece_bounds(z, y, robust_margins=margin[:3])
    with pytest.raises(ValueError, match="robust_margins must not exceed"):
        ece_bounds(z, y, robust_margins=margin * math.nan)
    with pytest.raises(TypeError, match=r"robust_margins must be a torch\.Tensor, got list"):
        ece_bounds(z, y, robust_margins=margin.tolist())
    # Rounding of another batch size is not another sample; the clean margin is then the lower one.
    # It grows with the margin, and robust margins may come in another precision.
    bounds = ece_bounds(z, y, robust_margins=margin + 1e-6)
    assert bounds.log["paper_robust_upper"] == bounds.log["paper_upper"]
    allowed = 1e-3 * (1 + margin.abs())
    assert ece_bounds(z, y, robust_margins=(margin + 0.99 * allowed).float()).holds
    with pytest.raises(ValueError, match="robust_margins must not exceed"):
        ece_bounds(z, y, robust_margins=margin + 1.01 * allowed)


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
    assert (found.misconfidence, found.lambda_max) == pytest.approx((u, ladder.u0))
    assert found.missing == ladder.missing.get("l4", "") == ""
    if n_bins == 15:  # which is the default
        assert direct_sandwich(model, inputs, target, ladder=ladder).ece == found.ece
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
