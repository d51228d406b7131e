"""Losses: closed forms, finite differences of the parameters, a plain twin, special cases."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks.reference_calmo import reference_calmo, squared_margin_gradient
from losses_cases import (
    CALMO,
    EVERY_LOSS,
    EXACT,
    batch,
    batchnorm_cnn,
    linear,
    passes,
    tanh_mlp,
)
from torch import Tensor, nn

from calibcourse.losses import CalMO, CrossEntropy, FocalLoss, MeanSquaredError
from calibcourse.models import small_cnn


def parameter_gradient(total: Tensor, model: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, list(model.parameters()))])


def finite_differences(total, model: nn.Module, step: float = 1e-5) -> Tensor:
    """Central differences of total() in every parameter."""
    slopes = []
    with torch.no_grad():
        for parameter in model.parameters():
            values = parameter.view(-1)
            for index in range(len(values)):
                centre = values[index].item()
                values[index] = centre + step
                above = total()
                values[index] = centre - step
                below = total()
                values[index] = centre
                slopes.append((above - below) / (2 * step))
    return torch.stack(slopes)


# The error of a central difference is step² · f''' / 6 + rounding / step, here about 1e-9.
BY_DIFFERENCES = {"rtol": 1e-6, "atol": 1e-7}


def bernoulli_kl(margin: float, attacked: float) -> float:
    """KL(p ‖ q) of two classes with these margins, p = σ(margin), q = σ(attacked)."""
    p, q = 1 / (1 + math.exp(-margin)), 1 / (1 + math.exp(-attacked))
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@pytest.mark.parametrize("norm, dual_length", [("linf", 1.5 + 2.0), ("l2", 2.5)])
@pytest.mark.parametrize("steps, reach", [(2, 0.08), (3, 0.1), (5, 0.1)])
def test_every_term_of_a_linear_model_in_closed_form(norm, dual_length, steps, reach):
    # z_0 - z_1 = 1.5 a - 2 b + 0.3: no attack leaves the sign pattern, so the margin falls by
    # min(steps · 0.04, 0.1) times the dual length of (1.5, -2).
    model = linear([[1.0, -1.5], [-0.5, 0.5]], [0.2, -0.1])
    inputs = torch.tensor([[0.5, 0.5], [0.7, 0.3], [0.2, 0.8]], dtype=torch.float64)
    target = torch.tensor([0, 1, 1])
    gap = [1.5 * a - 2.0 * b + 0.3 for a, b in inputs.tolist()]
    margins = [gap[0], -gap[1], -gap[2]]

    loss = CalMO(0.7, 0.3, epsilon=0.1, steps=steps, step_size=0.04, norm=norm)
    terms = loss(model, inputs, target)

    cross_entropy = np.mean([math.log1p(math.exp(-m)) for m in margins])
    robust = np.mean([bernoulli_kl(m, m - reach * dual_length) for m in margins])
    smooth = 2.5**2
    assert terms.cross_entropy.item() == pytest.approx(cross_entropy, rel=1e-12)
    assert terms.robust.item() == pytest.approx(robust, rel=1e-10)
    assert terms.smooth.item() == pytest.approx(smooth, rel=1e-12)
    assert terms.total.item() == pytest.approx(cross_entropy + 0.7 * robust + 0.3 * smooth)
    torch.testing.assert_close(terms.logits, model(inputs).detach(), rtol=0, atol=0)


def test_smooth_term_compares_the_label_with_its_strongest_rival():
    # At (1, 0) the logits are (2, 1, -1): class 1 is the rival of 0; class 0 that of 1 and of 2.
    rows = [[2.0, 0.0], [1.0, 5.0], [-1.0, 0.5]]
    model = linear(rows)
    inputs = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    target = torch.tensor([0, 1, 2])
    terms = CalMO(robust_weight=0)(model, inputs, target)
    squares = [1 + 25, 1 + 25, 9 + 0.25]
    assert terms.smooth.item() == pytest.approx(np.mean(squares), rel=1e-12)

    # d/dW of mean ‖w_y - w_j‖²: 2 (w_y - w_j) / n in row y, its negative in row j.
    w = np.array(rows)
    expected = np.zeros_like(w)
    for y, j in ((0, 1), (1, 0), (2, 0)):
        expected[y] += 2 * (w[y] - w[j]) / 3
        expected[j] -= 2 * (w[y] - w[j]) / 3
    plain = torch.autograd.grad(CrossEntropy()(model, inputs, target).total, model.weight)[0]
    total = torch.autograd.grad(terms.total, model.weight)[0]
    np.testing.assert_allclose((total - plain).numpy(), 0.01 * expected, rtol=1e-9, atol=1e-14)


def test_attack_stops_at_the_range_of_pixels():
    # To lower z_0 - z_1 = a - b the attack lowers a, which is 0 already, and raises b to at most 1.
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    inputs = torch.tensor([[0.0, 0.95]], dtype=torch.float64)
    terms, seen = passes(CalMO(epsilon=0.2, step_size=0.1), model, inputs, torch.tensor([0]))
    assert seen[-1].tolist() == [[0.0, 1.0]]
    assert terms.robust.item() == pytest.approx(bernoulli_kl(-0.95, -1.0), rel=1e-10)


def test_cross_entropy_with_and_without_smoothing():
    logits = np.array([[2.0, 0.5, -1.0], [0.0, 0.0, 3.0]])
    target = np.array([0, 1])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    plain = -log_p[[0, 1], target].mean()
    smoothed = 0.8 * plain - 0.2 * log_p.mean()
    call = (nn.Identity(), torch.tensor(logits), torch.tensor(target))
    assert CrossEntropy()(*call).total.item() == pytest.approx(plain, rel=1e-12)
    terms = CrossEntropy(0.2)(*call)
    assert terms.total.item() == pytest.approx(smoothed, rel=1e-12)
    assert terms.cross_entropy.item() == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_the_formula(gamma):
    inputs = torch.randn(20, 4, dtype=torch.float64) * 3
    target = torch.arange(20) % 4
    p = inputs.softmax(1).gather(1, target[:, None]).squeeze(1)
    formula = (-((1 - p) ** gamma) * p.log()).mean()
    terms = FocalLoss(gamma)(nn.Identity(), inputs, target)
    torch.testing.assert_close(terms.total, formula, **EXACT)
    torch.testing.assert_close(terms.cross_entropy, -p.log().mean(), **EXACT)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("margin", [-200.0, -20.0, 20.0, 40.0, 200.0])
def test_focal_loss_keeps_its_gradient_where_p_is_0_or_1(gamma, margin):
    # For two classes d/ds of σ(-s)^γ softplus(-s) is -σ(-s)^γ (γ σ(s) softplus(-s) + σ(-s)).
    logits = torch.tensor([[margin, 0.0]], requires_grad=True)
    total = FocalLoss(gamma)(nn.Identity(), logits, torch.tensor([0])).total
    (gradient,) = torch.autograd.grad(total, logits)
    small = math.exp(-abs(margin))
    wrong = small if margin > 0 else 1.0  # σ(-s) to float32 accuracy, for |s| >= 20
    nats = small if margin > 0 else -margin  # softplus(-s), likewise
    right = 1.0 if margin > 0 else small
    expected = -(wrong**gamma) * (gamma * right * nats + wrong)
    # float32, and exp of an argument near 100 that is itself rounded: 100 · 6e-8.
    assert gradient[0, 0].item() == pytest.approx(expected, rel=1e-5, abs=1e-37)


def test_mean_squared_error_and_its_constant_curvature():
    logits = torch.tensor([[1.0, 0.5, -1.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([1])

    def total(z: Tensor) -> Tensor:
        return MeanSquaredError()(nn.Identity(), z, target).total

    assert total(logits).item() == pytest.approx((1 + 0.25 + 1 + 0) / 4, rel=1e-12)
    hessian = torch.autograd.functional.hessian(total, logits).reshape(4, 4)
    torch.testing.assert_close(hessian, 2 / 4 * torch.eye(4, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("make_model", [tanh_mlp, batchnorm_cnn])
def test_gradient_against_finite_differences(make_model):
    """Through all three terms, and through both arguments of the KL.

    The L∞ attack is made of signs: x_adv does not move with the parameters, so differences of the
    whole loss, attack included, are right.
    """
    model, (inputs, target) = make_model().train(), batch()
    loss = CalMO(robust_weight=2.0, smooth_weight=0.1, epsilon=0.05, step_size=0.02)
    gradient = parameter_gradient(loss(model, inputs, target).total, model)
    slopes = finite_differences(lambda: loss(model, inputs, target).total, model)
    torch.testing.assert_close(gradient, slopes, **BY_DIFFERENCES)


def test_gradient_treats_adversarial_inputs_as_constants():
    """The L2 attack does move with the parameters: differences are taken with x_adv held still."""
    model, (inputs, target) = tanh_mlp(), batch()
    loss = CalMO(robust_weight=2.0, smooth_weight=0.1, epsilon=0.1, step_size=0.05, norm="l2")
    terms, seen = passes(loss, model, inputs, target)
    gradient = parameter_gradient(terms.total, model)

    def total() -> Tensor:
        p, q = model(inputs).softmax(1), model(seen[-1]).softmax(1)
        robust = (p * (p / q).log()).sum(1).mean()
        with torch.enable_grad():
            smooth = squared_margin_gradient(model, inputs, target).mean().detach()
        return F.cross_entropy(model(inputs), target) + 2.0 * robust + 0.1 * smooth

    assert terms.total.item() == pytest.approx(total().item(), rel=1e-12)
    torch.testing.assert_close(gradient, finite_differences(total, model), **BY_DIFFERENCES)
    moving = finite_differences(lambda: loss(model, inputs, target).total, model)
    assert (gradient - moving).abs().max() > 1e-4  # it would not pass by accident


@pytest.mark.parametrize("loss", [CrossEntropy(0.1), FocalLoss(), MeanSquaredError()], ids=repr)
def test_gradient_of_the_plain_losses(loss):
    model, (inputs, target) = tanh_mlp(), batch()
    gradient = parameter_gradient(loss(model, inputs, target).total, model)
    slopes = finite_differences(lambda: loss(model, inputs, target).total, model)
    torch.testing.assert_close(gradient, slopes, **BY_DIFFERENCES)


@pytest.mark.parametrize("make_model", [tanh_mlp, batchnorm_cnn])
@pytest.mark.parametrize("input_gradients_only", [False, True])
def test_same_numbers_as_term_by_term(make_model, input_gradients_only):
    model, (inputs, target) = make_model().train(), batch()
    options = {"robust_weight": 0.5, "smooth_weight": 0.1, "epsilon": 0.05, "step_size": 0.02}
    terms = CalMO(**options)(model, inputs, target)
    total, *parts = reference_calmo(
        model, inputs, target, **options, input_gradients_only=input_gradients_only
    )
    for ours, theirs in zip((terms.cross_entropy, terms.robust, terms.smooth), parts, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), **EXACT)
    torch.testing.assert_close(terms.total, total, **EXACT)
    ours, theirs = (parameter_gradient(value, model) for value in (terms.total, total))
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_same_numbers_as_term_by_term_in_float32():
    model = small_cnn()
    inputs = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    target = torch.arange(16) % 10
    terms = CalMO()(model, inputs, target)
    total, *_ = reference_calmo(model, inputs, target)
    assert terms.total.item() == pytest.approx(total.item(), rel=1e-6)
    ours, theirs = (parameter_gradient(value, model) for value in (terms.total, total))
    # A gradient is a difference of larger numbers: a digit less. In float64, above, they are equal.
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_flat_rob_and_plain_are_special_cases():
    model, (inputs, target) = tanh_mlp(), batch()
    whole = CALMO(model, inputs, target)
    settings = {"epsilon": CALMO.epsilon, "step_size": CALMO.step_size}
    flat = CalMO(0, 0.1, **settings)(model, inputs, target)
    rob = CalMO(0.5, 0, **settings)(model, inputs, target)
    plain = CalMO(0, 0, **settings)(model, inputs, target)
    assert flat.smooth == whole.smooth and flat.robust == 0
    assert rob.robust == whole.robust and rob.smooth == 0
    assert plain.total == CrossEntropy()(model, inputs, target).total
    assert plain.robust == plain.smooth == 0
    ce = whole.cross_entropy
    torch.testing.assert_close(whole.total - ce, flat.total - ce + rob.total - ce, **EXACT)
    # The gradients add up as the totals do.
    g = {
        name: parameter_gradient(t.total, model)
        for name, t in {"all": whole, "flat": flat, "rob": rob, "ce": plain}.items()
    }
    torch.testing.assert_close(g["all"] + g["ce"], g["flat"] + g["rob"], **EXACT)


@pytest.mark.parametrize(
    "loss, forwards",
    [(CalMO(steps=3), 4), (CalMO(0.5, 0, steps=5), 6), (CalMO(0), 1), (CalMO(0, 0), 1)],
    ids=repr,
)
def test_no_forward_pass_is_wasted(loss, forwards):
    """One clean pass, one per attack step after the first, one at the adversarial inputs."""
    _, seen = passes(loss, tanh_mlp(), *batch())
    assert len(seen) == forwards


def test_no_parameter_gradient_is_computed_or_prepared_in_the_attack():
    model, (inputs, target) = tanh_mlp(), batch()
    computed, trainable = [], []
    for parameter in model.parameters():
        parameter.register_hook(computed.append)
    model[1].register_forward_hook(lambda m, *_: trainable.append(m.weight.requires_grad))
    total = CalMO(steps=4)(model, inputs, target).total
    assert computed == []
    assert trainable == [True, False, False, False, True]
    total.backward()
    assert len(computed) == 4  # once for each of the four parameters
    assert all(p.requires_grad for p in model.parameters())


def test_terms_are_detached_and_the_total_is_not():
    for loss in EVERY_LOSS:
        terms = loss(tanh_mlp(), *batch())
        assert terms.total.requires_grad and terms.total.shape == ()
        for part in (terms.cross_entropy, terms.robust, terms.smooth, terms.logits):
            assert not part.requires_grad
        assert terms.logits.shape == (7, 3)
