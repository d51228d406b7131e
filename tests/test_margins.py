"""Margins, their exponential moment and their input gradients.

Reference values are written out by hand, computed by loops in float64, or by scipy.
"""

import decimal
import itertools
import math

import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calibcourse.margins import (
    error_probability,
    input_margin_gradient,
    linear_robust_margin,
    log_margin_moment,
    margin_moment,
    margin_moment_share,
    predicted_margin,
    soft_margin,
    true_margin,
    true_misconfidence,
)
from calibcourse.models import mlp

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@st.composite
def logits_and_target(draw, max_classes=30):
    """Logits of many sizes and scales, some of them on a coarse grid so that ties occur."""
    n, k = draw(st.integers(1, 6)), draw(st.integers(2, max_classes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    scale = 10 ** draw(st.floats(-3, 2.4))
    logits = scale * torch.randn(n, k, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        logits = logits.div(scale).round() * scale
    return logits, torch.randint(k, (n,), generator=generator)


def exact_error_probability(row: list[float], label: int) -> decimal.Decimal:
    """1 - p_y to 60 digits."""
    with decimal.localcontext(prec=60):
        weights = [(decimal.Decimal(z) - decimal.Decimal(row[label])).exp() for z in row]
        wrong = sum(w for j, w in enumerate(weights) if j != label)
        return wrong / (1 + wrong)


# ---------------------------------------------------------------------------- margins


@settings(max_examples=60)
@given(logits_and_target())
def test_margins_follow_their_definition(case):
    logits, target = case
    for row, label, true, predicted in zip(
        logits.tolist(),
        target.tolist(),
        true_margin(logits, target).tolist(),
        predicted_margin(logits).tolist(),
        strict=True,
    ):
        # One subtraction of the same two numbers: equal to the last bit.
        assert true == row[label] - max(z for j, z in enumerate(row) if j != label)
        first, second = sorted(row, reverse=True)[:2]
        assert predicted == first - second
        assert predicted >= 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_margins_keep_dtype_and_are_exact_on_small_integers(dtype):
    logits = torch.tensor([[3, 1, 0], [2, 5, 2], [4, 4, 0]], dtype=dtype)
    target = torch.tensor([0, 0, 1])
    assert torch.equal(true_margin(logits, target), torch.tensor([2, -3, 0], dtype=dtype))
    assert torch.equal(predicted_margin(logits), torch.tensor([2, 3, 0], dtype=dtype))
    assert soft_margin(logits, target).dtype == dtype
    assert error_probability(logits, target).dtype == dtype


def test_margin_gradient_reaches_the_two_classes_that_decide():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 2.0]], requires_grad=True)
    true_margin(logits, torch.tensor([0, 0])).sum().backward()
    # A tie among rivals shares the gradient.
    expected = torch.tensor([[1.0, -1.0, 0.0], [1.0, -0.5, -0.5]])
    assert torch.equal(logits.grad, expected)


@settings(max_examples=60)
@given(logits_and_target())
def test_soft_margin_lies_in_its_band_and_gives_every_softmax_quantity(case):
    logits, target = case
    margin, soft = true_margin(logits, target), soft_margin(logits, target)
    n_rivals = logits.shape[1] - 1
    # Both are differences of logits up to 1,000 in size: 1e-12 is some ten units in the last place.
    assert (soft <= margin).all()
    assert (soft >= margin - math.log(n_rivals) - 1e-12 * (1 + margin.abs())).all()
    if n_rivals == 1:
        assert torch.equal(soft, margin)
    loss = nn.functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(-nn.functional.logsigmoid(soft), loss, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_margin_survives_a_common_shift(dtype):
    # The shift is a power of two and the logits are small integers, so the shift itself is exact.
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]], dtype=dtype)
    target = torch.tensor([0])
    assert torch.equal(soft_margin(logits + 2.0**20, target), soft_margin(logits, target))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("margin", [-80.0, -3.0, 0.0, 1.0, 12.0, 18.0, 40.0, 80.0, 92.0])
def test_error_probability_does_not_cancel(dtype, tolerance, margin):
    # A relative error of |soft margin| units in the last place is inherent: the exponential of a
    # rounded number near 92 is off by up to 92 · 6e-8 in float32. Below 1e-38 float32 counts in
    # steps of 1.4e-45, which is 1e-5 of e^-92 = 1e-40.
    logits = torch.tensor([[margin, 0.0, -1.5, -2.0]], dtype=dtype)
    found = error_probability(logits, torch.tensor([0])).double().item()
    exact = float(exact_error_probability(logits[0].tolist(), 0))
    assert found > 0
    assert found == pytest.approx(exact, rel=2 * tolerance)


# ---------------------------------------------------------------------------- the moment Q


@settings(max_examples=60)
@given(st.lists(st.floats(-300, 300), min_size=1, max_size=40))
def test_log_moment_equals_scipy_and_lies_between_its_bounds(values):
    margin = torch.tensor(values, dtype=torch.float64)
    found = log_margin_moment(margin).item()
    expected = scipy.special.logsumexp(-margin.numpy()) - math.log(len(values))
    # Numbers up to 300, to a few units in the last place.
    assert found == pytest.approx(expected, rel=1e-13, abs=1e-12)
    assert -margin.mean().item() - 1e-12 * 300 <= found <= -margin.min().item() + 1e-12


def test_log_moment_neither_overflows_nor_underflows():
    for dtype in (torch.float32, torch.float64):
        wrong, right = torch.full((10,), -200.0, dtype=dtype), torch.full((10,), 200.0, dtype=dtype)
        assert log_margin_moment(wrong).item() == pytest.approx(200.0, rel=1e-6)
        assert log_margin_moment(right).item() == pytest.approx(-200.0, rel=1e-6)
        assert log_margin_moment(wrong).dtype == dtype
    assert margin_moment(torch.tensor([0.0, math.log(3.0)])).item() == pytest.approx(2 / 3)


def test_one_wrong_sample_among_many_dominates():
    margin = torch.tensor([8.0] * 99 + [-3.0], dtype=torch.float64)
    share = margin_moment_share(margin, 0.01).item()
    assert share == pytest.approx(math.exp(3) / (math.exp(3) + 99 * math.exp(-8)), rel=1e-12)


def test_share_counts_whole_samples_and_is_complete():
    margin = torch.arange(100, dtype=torch.float64)
    weight = torch.exp(-margin)
    # 0.07 · 100 is 7.000000000000001 in floating point, and means seven samples.
    for fraction, n_worst in ((0.0, 0), (0.001, 1), (0.01, 1), (0.07, 7), (0.071, 8), (1.0, 100)):
        expected = (weight[:n_worst].sum() / weight.sum()).item()
        assert margin_moment_share(margin, fraction).item() == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------------------- input gradients


def test_input_gradient_of_a_linear_model_is_a_difference_of_rows():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double()
    inputs = torch.rand(7, 3, 2, 2, dtype=torch.float64)
    target = torch.randint(5, (7,))
    weight, logits = model[1].weight, model(inputs)
    rival = logits.scatter(1, target[:, None], -math.inf).argmax(1)
    expected = (weight[target] - weight[rival]).view_as(inputs)
    assert torch.equal(input_margin_gradient(model, inputs, target), expected)


def test_input_gradient_equals_finite_differences():
    model = mlp((1, 3, 3), hidden=(8,), n_classes=4).double()
    inputs = torch.rand(3, 1, 3, 3, dtype=torch.float64, generator=torch.manual_seed(1))
    target = torch.tensor([0, 2, 3])
    gradient = input_margin_gradient(model, inputs, target)
    step = 1e-6
    for index in itertools.product(range(3), range(1), range(3), range(3)):
        moved = torch.zeros_like(inputs)
        moved[index] = step
        with torch.no_grad():
            slope = true_margin(model(inputs + moved), target) - true_margin(
                model(inputs - moved), target
            )
        # Central differences: error about step² + 1e-16 / step = 1e-10.
        assert gradient[index].item() == pytest.approx(
            slope[index[0]].item() / (2 * step), abs=1e-8
        )
        # A sample's margin does not feel another sample's input.
        assert slope[[i for i in range(3) if i != index[0]]].abs().max() == 0


def test_input_gradient_leaves_no_trace():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    model[0].train()  # mixed on purpose
    model[0].weight.requires_grad_(False)
    inputs = torch.randn(5, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        gradient = input_margin_gradient(model, inputs, torch.zeros(5, dtype=torch.int64))
    assert gradient.shape == inputs.shape and not gradient.requires_grad
    assert not inputs.requires_grad and inputs.grad is None
    assert [module.training for module in model.modules()] == [False, True, False, False]
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_input_gradient_is_refused_where_samples_are_coupled():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"BatchNorm1d in train mode.*model\.eval\(\)"):
        input_margin_gradient(model, torch.randn(5, 4), torch.zeros(5, dtype=torch.int64))


# ---------------------------------------------------------------------------- linear models


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_linear_robust_margin_equals_the_minimum_over_all_corners(n_classes):
    # The margin is a minimum of linear functions, so over a cube it is lowest at a corner.
    torch.manual_seed(n_classes)
    weight, bias = torch.randn(n_classes, 4).double(), torch.randn(n_classes).double()
    inputs, target = torch.randn(20, 4).double(), torch.randint(n_classes, (20,))
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4))).double()
    attacked = inputs[:, None] + 0.3 * corners
    logits = attacked @ weight.T + bias
    lowest = true_margin(logits.flatten(0, 1), target.repeat_interleave(16)).view(20, 16).amin(1)
    found = linear_robust_margin(weight, bias, inputs, target, 0.3, "linf")
    torch.testing.assert_close(found, lowest, rtol=1e-12, atol=1e-12)


def test_linear_robust_margin_equals_the_minimum_over_a_circle():
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 2).double(), torch.randn(5).double()
    inputs, target = torch.randn(20, 2).double(), torch.randint(5, (20,))
    angle = torch.linspace(0, 2 * math.pi, 20001).double()
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    logits = (inputs[:, None] + 0.3 * circle) @ weight.T + bias
    margins = true_margin(logits.flatten(0, 1), target.repeat_interleave(len(circle)))
    lowest = margins.view(20, -1).amin(1)
    found = linear_robust_margin(weight, bias, inputs, target, 0.3, "l2")
    # The grid misses the best angle by at most 1.6e-4, hence the drop by half its square.
    assert (found <= lowest + 1e-12).all()
    torch.testing.assert_close(found, lowest, rtol=0, atol=1e-7)


def test_linear_robust_margin_at_zero_radius_is_the_margin():
    torch.manual_seed(0)
    weight, inputs, target = torch.randn(4, 12), torch.rand(5, 3, 2, 2), torch.randint(4, (5,))
    expected = true_margin(inputs.flatten(1) @ weight.T, target)
    for norm in ("linf", "l2"):
        assert torch.equal(linear_robust_margin(weight, None, inputs, target, 0.0, norm), expected)


# ---------------------------------------------------------------------------- refusals

LOGITS, TARGET = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
WEIGHT, INPUTS = torch.zeros(4, 2), torch.zeros(3, 2)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: true_margin(torch.zeros(3), TARGET), ValueError, "logits must have shape"),
        (lambda: true_margin(LOGITS, TARGET[:2]), ValueError, "target must have shape"),
        (lambda: true_margin(LOGITS, TARGET + 4), ValueError, r"target must lie in 0\.\.3"),
        (lambda: true_margin(LOGITS, TARGET.float()), TypeError, "target must have dtype"),
        (lambda: soft_margin(LOGITS / 0, TARGET), ValueError, "logits must be finite"),
        (lambda: predicted_margin(torch.zeros(3, 1)), ValueError, "logits must have K >= 2"),
        (lambda: error_probability(LOGITS.long(), TARGET), TypeError, "logits must have a float"),
        (lambda: log_margin_moment(LOGITS), ValueError, "margin must have shape"),
        (lambda: log_margin_moment(torch.zeros(0)), ValueError, "margin must have shape"),
        (lambda: log_margin_moment(TARGET), TypeError, "margin must have a floating dtype"),
        (lambda: log_margin_moment([1.0]), TypeError, "margin must be a torch.Tensor"),
        (lambda: margin_moment(torch.tensor([math.nan])), ValueError, "margin must be finite"),
        (lambda: margin_moment_share(torch.zeros(3), 1.5), ValueError, "fraction must lie in"),
        (
            lambda: input_margin_gradient(nn.Identity(), INPUTS / 0, TARGET),
            ValueError,
            "inputs must be finite",
        ),
        (
            lambda: linear_robust_margin(WEIGHT, None, INPUTS, TARGET, -0.1),
            ValueError,
            "epsilon must lie in",
        ),
        (
            lambda: linear_robust_margin(WEIGHT, None, INPUTS, TARGET, 0.1, "l1"),
            ValueError,
            "norm must be one of l2, linf",
        ),
        (
            lambda: linear_robust_margin(WEIGHT, None, LOGITS, TARGET, 0.1),
            ValueError,
            r"weight must have shape \(K, 4\)",
        ),
        (
            lambda: linear_robust_margin(WEIGHT, torch.zeros(3), INPUTS, TARGET, 0.1),
            ValueError,
            r"bias must have shape \(4,\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_old_name_of_the_error_probability_warns():
    with pytest.warns(DeprecationWarning, match="error_probability"):
        old = true_misconfidence(LOGITS, TARGET)
    assert torch.equal(old, error_probability(LOGITS, TARGET))
