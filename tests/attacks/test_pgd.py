"""PGD: in its ball, against closed forms; side effects and refusals of both attacks."""

import math

import pytest
import torch
import torch.nn.functional as F
from attacks_cases import (
    NORMS,
    perturbation_size,
    trained_mlp,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calibcourse import _ball
from calibcourse.attacks import Ball, RobustMargin, pgd, robust_margin


@st.composite
def ball_and_point(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    shape = draw(st.sampled_from([(3, 2), (2, 1, 4, 4), (1, 50)]))
    clip = draw(st.sampled_from([None, (0.0, 1.0), (-0.5, 2.0)]))
    centre = torch.rand(shape, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        centre = centre.round()  # every pixel at the border
    ball = Ball(centre, draw(st.floats(0, 3)), draw(st.sampled_from(NORMS)), clip)
    return ball, torch.randn(shape, generator=generator, dtype=torch.float64)


def assert_inside(ball, point):
    # x + δ is rounded: 1e-15 per pixel for values near 1.
    assert (perturbation_size(point - ball.centre, ball.norm) <= ball.epsilon + 1e-14).all()
    if ball.clip is not None:
        assert point.min() >= ball.clip[0] and point.max() <= ball.clip[1]


@settings(max_examples=80)
@given(ball_and_point())
def test_projection_lands_inside_and_leaves_the_inside_alone(case):
    ball, direction = case
    point = ball.project(ball.centre + 10 * direction)
    assert_inside(ball, point)
    torch.testing.assert_close(ball.project(point), point, rtol=0, atol=1e-14)


@settings(max_examples=80)
@given(ball_and_point(), st.floats(0, 5))
def test_a_step_stays_inside_and_does_not_descend(case, step_size):
    ball, gradient = case
    point = ball.ascend(ball.centre, gradient, step_size)
    assert_inside(ball, point)
    # From the centre every pixel moves along its gradient or not at all.
    assert ((point - ball.centre) * gradient >= 0).all()


def test_projection_onto_an_l2_ball_keeps_the_direction():
    ball = Ball(torch.zeros(2, 2), 1.0, "l2", clip=None)
    found = ball.project(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.3, 0.4]]))


def test_an_l2_step_spends_no_length_where_it_would_be_cut_off():
    ball = Ball(torch.tensor([[0.0, 0.5]]), 0.2, "l2")
    found = ball.ascend(ball.centre, torch.tensor([[-100.0, 1.0]]), 0.2)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.7]]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e30])
def test_a_step_has_its_length_whatever_the_size_of_the_gradient(norm, scale):
    gradient = scale * torch.tensor([[0.6, -0.8], [0.6, -0.8]])
    ball = Ball(torch.full((2, 2), 0.5), 0.25, norm)
    moved = ball.ascend(ball.centre, gradient, 0.1) - ball.centre
    torch.testing.assert_close(perturbation_size(moved, norm), torch.tensor([0.1, 0.1]))


@pytest.mark.parametrize("norm", NORMS)
def test_a_dead_gradient_moves_all_the_same_and_always_alike(norm):
    ball = Ball(torch.full((3, 4), 0.5), 0.25, norm)
    gradient = torch.zeros(3, 4)
    gradient[1, 0] = 1.0
    moved = ball.ascend(ball.centre, gradient, 0.1) - ball.centre
    assert moved[0].abs().max() > 0 and torch.equal(moved[0], moved[2])
    assert torch.equal(moved, ball.ascend(ball.centre, gradient, 0.1) - ball.centre)
    torch.testing.assert_close(moved[1], torch.tensor([0.1, 0.0, 0.0, 0.0]))


def plain_attack(model, inputs, target, epsilon, norm, steps, step_size):
    """Madry's attack, written straight from its definition on the cross-entropy, in float64."""
    point = inputs
    for _ in range(steps):
        point = point.detach().requires_grad_()
        loss = F.cross_entropy(model(point), target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
        if norm == "linf":
            point = point.detach() + step_size * gradient.sign()
            point = torch.min(torch.max(point, inputs - epsilon), inputs + epsilon)
        else:
            flat = gradient.flatten(1)
            point = point.detach() + step_size * (flat / flat.norm(dim=1, keepdim=True)).view_as(
                point
            )
            offset = (point - inputs).flatten(1)
            offset = offset * (epsilon / offset.norm(dim=1, keepdim=True)).clamp(max=1)
            point = inputs + offset.view_as(point)
        point = point.clamp(0, 1)
    return point


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.05), ("l2", 0.2)])
@pytest.mark.parametrize("steps", [1, 4])
def test_pgd_is_the_textbook_attack(norm, epsilon, steps):
    model, inputs, target = trained_mlp()
    model, inputs = model.double(), 0.25 + 0.5 * inputs.double()  # away from the border
    expected = plain_attack(model, inputs, target, epsilon, norm, steps, epsilon / 2)
    found = pgd(model, inputs, target, epsilon, norm, steps, epsilon / 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_one_step_of_full_length_is_the_fast_gradient_sign_method():
    model, inputs, target = trained_mlp()
    point = inputs.clone().requires_grad_()
    F.cross_entropy(model(point), target).backward()
    expected = (inputs + 0.03 * point.grad.sign()).clamp(0, 1)
    found = pgd(model, inputs, target, 0.03, steps=1, step_size=0.03)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_pgd_on_cross_entropy_does_not_lose_its_way_where_the_model_is_sure():
    # In float32 p_y rounds to 1 at margin 40, so p_y - 1 = 0: the true class would be forgotten.
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -3.0]])
    model = nn.Linear(2, 3, bias=False)
    model.weight.data = 100 * weight
    inputs, target = torch.tensor([[0.9, 0.5]]), torch.tensor([0])
    found = pgd(model, inputs, target, 0.1)
    exact = pgd(model.double(), inputs.double(), target, 0.1).float()
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.6]]))
    torch.testing.assert_close(found, exact)


def test_pgd_on_the_margin_ignores_all_rivals_but_the_first():
    model = nn.Linear(3, 3, bias=False)
    model.weight.data = torch.eye(3)
    inputs, target = torch.tensor([[0.9, 0.5, 0.3]]), torch.tensor([0])
    found = pgd(model, inputs, target, 0.1, objective="margin")
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.6, 0.3]]))
    both = pgd(model, inputs, target, 0.1, objective="cross_entropy")
    torch.testing.assert_close(both, torch.tensor([[0.8, 0.6, 0.4]]))


ATTACKS = {
    "pgd": lambda *args: pgd(*args, 0.05, steps=3),
    "default": lambda *args: robust_margin(*args, 0.05, steps=3).adversarial_inputs,
    "every rival": lambda *args: (
        robust_margin(*args, 0.05, "l2", 2, multi_targeted=True).adversarial_inputs
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad])
def test_attacks_leave_no_trace(attack, grad_mode):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 3),
    ).eval()
    model[1].train()  # mixed on purpose
    model[5].bias.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda grad: pytest.fail("a parameter's gradient was computed"))
    inputs = torch.rand(5, 1, 4, 4).requires_grad_()
    target = torch.randint(3, (5,))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    random_state, before = torch.get_rng_state(), inputs.detach().clone()

    with grad_mode():
        found = attack(model, inputs, target)
        again = attack(model, inputs, target)

    assert torch.equal(found, again)  # deterministic, and without touching the random state:
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not found.requires_grad and torch.equal(inputs, before) and inputs.grad is None
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.cuda
@pytest.mark.parametrize("norm", NORMS)
def test_attacks_agree_on_a_gpu(norm):
    model, inputs, target = trained_mlp()
    model, inputs = model.double(), inputs.double()
    here = robust_margin(model, inputs, target, 0.05, norm)
    there = robust_margin(model.cuda(), inputs.cuda(), target.cuda(), 0.05, norm)
    assert there.margin.is_cuda and there.adversarial_inputs.is_cuda
    torch.testing.assert_close(there.margin.cpu(), here.margin, rtol=0, atol=1e-9)


MODEL, INPUTS, TARGET = nn.Linear(2, 3), torch.full((4, 2), 0.5), torch.zeros(4, dtype=torch.int64)


class Overflows(nn.Module):
    def forward(self, x):
        return torch.stack([x.sum(1), -torch.log(0.75 - x.amax(1))], 1)  # NaN above 0.75


@pytest.mark.parametrize("attack", [pgd, robust_margin])
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"epsilon": -0.1}, ValueError, "epsilon must lie in"),
        ({"epsilon": math.nan}, ValueError, "epsilon must lie in"),
        ({"epsilon": "8"}, TypeError, "epsilon must be a real number"),
        ({"norm": "l1"}, ValueError, "norm must be one of l2, linf; got 'l1'"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 2.0}, TypeError, "steps must be an int"),
        ({"step_size": -1.0}, ValueError, "step_size must lie in"),
        ({"clip": (0.6, 1.0)}, ValueError, r"inputs must lie inside clip=\(0.6, 1.0\).*clip=None"),
        ({"clip": (0.0, 0.4)}, ValueError, "inputs must lie inside clip"),
        ({"clip": (1.0, 0.0)}, ValueError, "clip must have low < high"),
        ({"clip": (0.5, 0.5)}, ValueError, "clip must have low < high"),
        ({"clip": 1.0}, TypeError, "clip must be a pair"),
        ({"clip": (0.0, math.inf)}, ValueError, "clip must lie in"),
        ({"inputs": INPUTS / 0}, ValueError, "inputs must be finite"),
        ({"inputs": TARGET}, TypeError, "inputs must have a floating dtype"),
        ({"target": TARGET[:2]}, ValueError, r"target must have shape \(4,\)"),
        (
            {"target": torch.zeros(6, dtype=torch.int64)},
            ValueError,
            r"target must have shape \(4,\)",
        ),
        ({"target": TARGET + 3}, ValueError, r"target must lie in 0\.\.2"),
        ({"model": nn.Sequential(MODEL, nn.Dropout())}, ValueError, r"Dropout in train mode"),
        ({"model": nn.Sequential(MODEL, nn.BatchNorm1d(3))}, ValueError, r"call model\.eval\(\)"),
        ({"model": nn.Flatten(0)}, ValueError, r"model\(inputs\) must have shape \(N, K\)"),
        ({"model": Overflows(), "epsilon": 0.4}, ValueError, "must be finite"),
    ],
)
def test_bad_arguments_are_named(attack, change, error, message):
    good = {"model": MODEL, "inputs": INPUTS, "target": TARGET, "epsilon": 0.1}
    with pytest.raises(error, match=message):
        attack(**(good | change))


def test_other_bad_arguments_are_named():
    with pytest.raises(ValueError, match="objective must be one of cross_entropy, margin"):
        pgd(MODEL, INPUTS, TARGET, 0.1, objective="kl")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        robust_margin(MODEL, INPUTS, TARGET, 0.1, batch_size=0)


def test_display_is_short():
    found = RobustMargin(torch.tensor([1.0, -3.0]), torch.zeros(2, 784))
    assert repr(found) == "RobustMargin(n=2, mean margin=-1, min margin=-3)"


def test_a_gradient_of_zero_is_left_by_a_fixed_pattern_of_both_signs():
    signs = _ball._signs_like(torch.zeros(3, 5, 7))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs[0].sum())) < 20  # of 35: far from all alike
    assert torch.equal(signs, _ball._signs_like(torch.zeros(3, 5, 7)))
    assert torch.equal(signs[0], signs[2])
