"""The robust margin: an upper bound, exact on linear networks."""

import itertools
import math

import pytest
import torch
from attacks_cases import (
    NORMS,
    perturbation_size,
    trained_mlp,
)
from torch import nn

from calibcourse.attacks import pgd, robust_margin
from calibcourse.margins import linear_robust_margin, true_margin
from calibcourse.models import small_cnn


def linear_case(n_classes, dimension, seed, n_samples=60, reach=1.0, dtype=torch.float64):
    """A random linear model, inputs, labels, and radii in both norms.

    With radius epsilon, the largest possible drop of a margin is `reach` times the mean margin.
    """
    generator = torch.Generator().manual_seed(1000 * n_classes + 10 * dimension + seed)
    model = nn.Linear(dimension, n_classes).to(dtype).requires_grad_(False)
    model.weight.normal_(0, dimension**-0.5, generator=generator)
    model.bias.normal_(0, 0.3 * seed, generator=generator)
    inputs = torch.randn(n_samples, dimension, generator=generator, dtype=dtype)
    predicted = model(inputs).argmax(1)
    target = torch.randint(n_classes, (n_samples,), generator=generator)
    target = torch.where(torch.arange(n_samples) % 4 == 0, target, predicted)  # a quarter by chance
    size = true_margin(model(inputs), predicted).mean().item()
    epsilon = {norm: reach * size / largest_drop(model, 1.0, norm).max().item() for norm in NORMS}
    return model, inputs, target, epsilon


def largest_drop(model, epsilon, norm):
    """ε max_j ‖w_y - w_j‖_* for every class y: no margin can fall by more."""
    p = {"linf": 1, "l2": 2}[norm]
    return epsilon * torch.cdist(model.weight, model.weight, p=p).amax(1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_classes", [2, 3, 10, 30, 100])
def test_default_attack_is_exact_on_linear_models(n_classes, norm):
    worst = 0.0
    for dimension, seed, reach in itertools.product((5, 20, 200), (0, 1, 2), (0.3, 1.0)):
        model, inputs, target, epsilon = linear_case(n_classes, dimension, seed, reach=reach)
        exact = linear_robust_margin(model.weight, model.bias, inputs, target, epsilon[norm], norm)
        found = robust_margin(model, inputs, target, epsilon[norm], norm, clip=None).margin
        clean = true_margin(model(inputs), target)
        assert (found <= clean).all()
        assert (found >= exact - 1e-12).all()  # float64 sums of numbers of order 1
        drop = largest_drop(model, epsilon[norm], norm)[target]
        worst = max(worst, ((found - exact) / drop).max().item())
    # Up to ten rivals every one is scouted, by a step that is exact; of more, the ten nearest, and
    # in balls no larger than the margins the winner is among them. Sums of up to 200 float64
    # numbers of order 1 remain: 7e-14 was seen.
    assert worst <= 1e-12


def test_as_many_rivals_are_scouted_as_there_are_steps_the_nearest_first():
    """Rival 1 is near and slow, rival 2 far and fast: it wins, if it is ever tried."""
    model = nn.Linear(2, 3).double()
    model.weight.data = torch.tensor([[0, 0], [0.1, 0], [0, 3.0]], dtype=torch.float64)
    model.bias.data = torch.tensor([0, -1, -2.0], dtype=torch.float64)
    inputs, target = torch.zeros(1, 2).double(), torch.tensor([0])
    for steps, multi_targeted, expected in ((1, False, 0.9), (2, False, -1.0), (1, True, -1.0)):
        found = robust_margin(model, inputs, target, 1.0, "linf", steps, multi_targeted, clip=None)
        assert found.margin.item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_classes", [2, 3, 10, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multi_targeted_attack_is_exact_on_linear_models(n_classes, norm, dtype):
    for dimension, reach in itertools.product((2, 30), (0.3, 3.0)):
        model, inputs, target, epsilon = linear_case(
            n_classes, dimension, seed=1, n_samples=20, reach=reach, dtype=dtype
        )
        exact = linear_robust_margin(model.weight, model.bias, inputs, target, epsilon[norm], norm)
        found = robust_margin(
            model, inputs, target, epsilon[norm], norm, steps=1, multi_targeted=True, clip=None
        )
        drop = largest_drop(model, epsilon[norm], norm)[target]
        assert ((found.margin - exact) / drop).abs().max() <= 1e-4


def test_following_the_margin_alone_would_fail_that_test():
    """The defect that scouting cures: at the clean input the margin shows one rival only."""
    worst = 0.0
    for seed in range(3):
        model, inputs, target, epsilon = linear_case(10, 5, seed)
        found = inputs
        lowest = true_margin(model(inputs), target)
        for _ in range(20):
            found = pgd(model, found, target, epsilon["l2"], "l2", 1, None, "margin", clip=None)
            offset = found - inputs
            found = inputs + offset * (epsilon["l2"] / offset.norm(dim=1, keepdim=True)).clamp(
                max=1
            )
            lowest = torch.minimum(lowest, true_margin(model(found), target))
        exact = linear_robust_margin(model.weight, model.bias, inputs, target, epsilon["l2"], "l2")
        drop = largest_drop(model, epsilon["l2"], "l2")[target]
        worst = max(worst, ((lowest - exact) / drop).max().item())
    assert worst > 0.1


@pytest.mark.parametrize("norm", NORMS)
def test_linear_attack_inside_a_range_is_exact_in_linf_and_valid_in_l2(norm):
    model, _, _, _ = linear_case(3, 6, 1)
    inputs = torch.rand(40, 6, dtype=torch.float64).round(decimals=1).clamp(0, 1)
    target = model(inputs).argmax(1)
    found = robust_margin(model, inputs, target, 0.3, norm)
    whole_ball = linear_robust_margin(model.weight, model.bias, inputs, target, 0.3, norm)
    assert (found.margin >= whole_ball - 1e-12).all()
    if norm == "linf":  # pixel by pixel: go down along w_y - w_j, as far as ball and range allow
        low, high = (inputs - 0.3).clamp(0, 1), (inputs + 0.3).clamp(0, 1)
        exact = torch.full((40,), math.inf, dtype=torch.float64)
        for rival in range(3):
            slope = model.weight[target] - model.weight[rival]
            point = torch.where(slope > 0, low, high)
            logits = model(point)
            gap = logits.gather(1, target[:, None])[:, 0] - logits[:, rival]
            exact = torch.where(target == rival, exact, torch.minimum(exact, gap))
        torch.testing.assert_close(found.margin, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm, epsilon", [("linf", 8 / 255), ("l2", 0.5)])
@pytest.mark.parametrize("multi_targeted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_reported_is_reached_inside_ball_and_range(norm, epsilon, multi_targeted, dtype):
    model, inputs, target = trained_mlp()
    model, inputs = model.to(dtype), inputs.to(dtype)
    inputs[:8] = inputs[:8].round()  # black and white images: every pixel at the border
    with torch.no_grad():
        clean = true_margin(model(inputs), target)
        found = robust_margin(model, inputs, target, epsilon, norm, multi_targeted=multi_targeted)
        reached = true_margin(model(found.adversarial_inputs), target)
    torch.testing.assert_close(found.margin, reached, rtol=1e-5, atol=1e-5)
    assert (found.margin <= clean).all() and (found.margin < clean).float().mean() > 0.9
    point = found.adversarial_inputs
    assert point.min() >= 0 and point.max() <= 1 and point.dtype == dtype
    # x + δ near 1 is rounded by half an ulp, 6e-8 in float32; in L2 36 pixels add in squares.
    slack = 8 * torch.finfo(dtype).eps
    assert perturbation_size(point - inputs, norm).max() <= epsilon + slack


def test_brute_force_in_two_dimensions_confirms_the_found_margins():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    for layer in (model[0], model[2]):
        layer.weight.data *= 3
    inputs, target = torch.rand(50, 2).double(), torch.randint(4, (50,))
    line = torch.linspace(-0.1, 0.1, 41).double()
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        logits = model((inputs[:, None] + grid).flatten(0, 1))
        margins = true_margin(logits, target.repeat_interleave(len(grid))).view(50, -1)
        clean = true_margin(model(inputs), target)
    found = robust_margin(model, inputs, target, 0.1, clip=None).margin
    # The attack may beat the grid by half a cell, and may miss a far valley: 2 % of the drop each.
    drop = (clean - margins.amin(1)).mean()
    assert (found - margins.amin(1)).mean().abs() <= 0.02 * drop


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.05), ("l2", 0.3)])
def test_it_finds_lower_margins_than_plain_pgd_of_twice_the_steps(norm, epsilon):
    model, inputs, target = trained_mlp()
    ours = robust_margin(model, inputs, target, epsilon, norm, steps=10).margin
    plain = pgd(model, inputs, target, epsilon, norm, 20, objective="margin")
    with torch.no_grad():
        theirs = true_margin(model(plain), target)
    assert ours.mean() < theirs.mean()
    assert ((ours - theirs) <= 0.02).all()  # and never noticeably worse: margins are of order 1


def test_the_clean_input_is_a_candidate():
    class Bowl(nn.Module):
        """The margin grows with the distance from 0.5, where its gradient is zero."""

        def forward(self, x):
            margin = 1 + (x - 0.5).square().sum(1)
            return torch.stack([margin, torch.zeros_like(margin)], 1)

    inputs = torch.full((2, 3), 0.5)
    found = robust_margin(Bowl(), inputs, torch.tensor([0, 0]), 0.1)
    assert torch.equal(found.adversarial_inputs, inputs)
    assert torch.equal(found.margin, torch.ones(2))


def test_it_wakes_up_units_that_are_dead_at_the_clean_input():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].weight.data, model[0].bias.data = torch.eye(4), torch.full((4,), -0.55)
    model[2].weight.data = torch.stack([-torch.ones(4), torch.ones(4)])
    model[2].bias.data = torch.tensor([1.0, 0.0])
    inputs, target = torch.full((1, 4), 0.5), torch.tensor([0])
    # Every unit that the pattern of signs switches on takes 2 · 0.05 off the clean margin of 1.
    found = robust_margin(model, inputs, target, 0.1)
    switched_on = int((found.adversarial_inputs > 0.55).sum())
    assert switched_on >= 1
    assert found.margin.item() == pytest.approx(1 - 0.1 * switched_on, abs=1e-6)


@pytest.mark.parametrize("multi_targeted", [False, True])
def test_zero_radius_gives_the_clean_margin_to_the_last_bit(multi_targeted):
    model, inputs, target = trained_mlp()
    found = robust_margin(model, inputs, target, 0.0, multi_targeted=multi_targeted, batch_size=7)
    with torch.no_grad():
        assert torch.equal(found.margin, true_margin(model(inputs), target))
    assert torch.equal(found.adversarial_inputs, inputs)
    assert found.adversarial_inputs is not inputs


def test_samples_do_not_influence_each_other():
    model, inputs, target = trained_mlp()
    model, inputs = model.double(), inputs.double()
    whole = robust_margin(model, inputs, target, 0.05, "l2").margin
    order = torch.randperm(64, generator=torch.manual_seed(0))
    parts = robust_margin(model, inputs[order], target[order], 0.05, "l2", batch_size=9).margin
    # Matrix products of other sizes round differently: 1e-16 each, over twenty steps.
    torch.testing.assert_close(parts, whole[order], rtol=0, atol=1e-10)


def test_more_steps_and_more_targets_find_lower_margins():
    model = small_cnn((1, 8, 8), (4, 8), 10)
    inputs = torch.rand(32, 1, 8, 8, generator=torch.manual_seed(0))
    target = model(inputs).argmax(1)
    few, many = (
        robust_margin(model, inputs, target, 0.1, steps=steps).margin.mean() for steps in (1, 10)
    )
    every = robust_margin(model, inputs, target, 0.1, multi_targeted=True).margin.mean()
    assert every <= many < few


class Valley(nn.Module):
    """One pixel x, margin 2 |x - 0.6| + 1: its gradient tells the side and nothing else."""

    def forward(self, x):
        return torch.cat([2 * (x - 0.6).abs() + 1, torch.zeros_like(x)], 1)


@pytest.mark.parametrize("steps, multi_targeted", [(8, False), (6, True)])
def test_refining_steps_fall_by_one_factor_and_the_last_point_counts(steps, multi_targeted):
    inputs, target = torch.zeros(1, 1).double(), torch.tensor([0])
    options = {"steps": steps, "multi_targeted": multi_targeted, "clip": None}
    visited = [1.0]  # scouted; then six steps to and fro
    for step in range(6):
        towards = 1 if visited[-1] < 0.6 else -1
        visited.append(visited[-1] + towards * steps ** (-step / 5))
    nearest = min(visited, key=lambda x: abs(x - 0.6))
    assert nearest == visited[-1]
    found = robust_margin(Valley(), inputs, target, 1.0, **options)
    assert found.adversarial_inputs.item() == pytest.approx(nearest, rel=1e-14)
    assert found.margin.item() == pytest.approx(1 + 2 * abs(nearest - 0.6), rel=1e-14)
    # Of 0.22 each: 0.78, 0.56, 0.78 and so on, of which the second is nearest.
    found = robust_margin(Valley(), inputs, target, 1.0, step_size=0.22, **options)
    assert found.adversarial_inputs.item() == pytest.approx(0.56, rel=1e-14)


@pytest.mark.parametrize("objective", ["margin", "cross_entropy"])
def test_steps_of_pgd_are_two_and_a_half_radii_in_all(objective):
    inputs, target = torch.zeros(1, 1).double(), torch.tensor([0])
    # Steps of 2.5 / 5: 0.5, 1, 0.5, 1, 0.5; and the last one is returned.
    found = pgd(Valley(), inputs, target, 1.0, steps=5, objective=objective, clip=None)
    assert found.item() == pytest.approx(0.5, rel=1e-14)
    # Of 2.5 / 2: as far as the border at 1, and back beyond the start.
    found = pgd(Valley(), inputs, target, 1.0, steps=2, objective=objective, clip=None)
    assert found.item() == pytest.approx(-0.25, rel=1e-14)


def test_step_size_is_the_length_of_refining_steps():
    model, inputs, target = trained_mlp()
    still = robust_margin(model, inputs, target, 0.05, steps=4, step_size=0.0).margin
    moving = robust_margin(model, inputs, target, 0.05, steps=4, step_size=0.02).margin
    assert (moving <= still).all() and (moving < still).any()


class Saturating(nn.Module):
    """Rivals at distances 1, 1 and 2. The first comes nearer by x, and no further than 0.2."""

    def __init__(self, second, third):
        super().__init__()
        self.second, self.third, self.seen, self.largest_batch = second, third, 0, 0

    def forward(self, x):
        self.seen += len(x)
        self.largest_batch = max(self.largest_batch, len(x))
        gaps = [1 - x[:, 0].clamp(max=0.2), 1 - self.second * x[:, 1], 2 - self.third * x[:, 2]]
        return torch.stack([torch.zeros_like(gaps[0]), *(-gap for gap in gaps)], 1)


def test_where_rivals_are_predicted_to_come_nearly_as_low_their_points_are_evaluated():
    """The first is predicted to come down by 1, which is wrong; half of that decides."""
    inputs, target = torch.zeros(5, 3).double(), torch.tensor([0] * 5)
    seen = {}
    for second, third, expected in ((0.4, 1.4, 0.8), (0.6, 1.4, 0.4), (0.4, 1.6, 0.4)):
        model = Saturating(second, third)
        found = robust_margin(model, inputs, target, 1.0, steps=3, step_size=0.0, clip=None)
        torch.testing.assert_close(found.margin, torch.full((5,), expected).double())
        seen[second, third] = model.seen
    assert seen[0.6, 1.4] == seen[0.4, 1.6] == seen[0.4, 1.4] + 2 * 5


def test_scouts_are_evaluated_in_batches_no_larger_than_asked_for():
    inputs, target = torch.zeros(5, 3).double(), torch.tensor([0] * 5)
    model = Saturating(0.6, 1.6)
    robust_margin(model, inputs, target, 1.0, steps=3, clip=None)
    assert model.largest_batch == 5  # of 15 points


@pytest.mark.parametrize("inner", [torch.float32, torch.float64])
def test_logits_may_have_another_dtype_than_inputs(inner):
    class Casting(nn.Module):
        def forward(self, x):
            return torch.cat([x.to(inner), 1 - x.to(inner), 0.8 * x.to(inner)], 1)

    outer = torch.float64 if inner == torch.float32 else torch.float32
    inputs, target = torch.full((4, 1), 0.9, dtype=outer), torch.tensor([0] * 4)
    for multi_targeted in (False, True):
        found = robust_margin(Casting(), inputs, target, 0.1, multi_targeted=multi_targeted)
        torch.testing.assert_close(found.margin, torch.full((4,), 0.16, dtype=inner))  # x = 0.8


class Watched(nn.Module):
    """Four classes; counts backward passes, and says NaN of any input above a limit."""

    def __init__(self, limit=9.0):
        super().__init__()
        self.limit, self.backward_passes = limit, 0

    def count(self, gradient):
        self.backward_passes += 1

    def forward(self, x):
        x = x * 1.0
        if x.requires_grad:
            x.register_hook(self.count)
        logits = torch.cat([-x, x, x / 2, x / 3], 1)
        return torch.where(x > self.limit, math.nan, logits)


def test_it_takes_as_many_backward_passes_as_it_says():
    inputs, target = torch.full((5, 1), 0.5), torch.tensor([0] * 5)
    for steps, multi_targeted, expected in ((2, False, 4), (5, False, 7), (5, True, 18)):
        model = Watched()
        robust_margin(model, inputs, target, 0.1, steps=steps, multi_targeted=multi_targeted)
        assert model.backward_passes == expected


def test_logits_that_are_not_finite_are_named_wherever_they_are_met():
    inputs, target = torch.full((7, 1), 0.5), torch.tensor([0] * 7)
    inputs[1] = 0.8  # not one of the samples that are tried beforehand
    for limit, multi_targeted in ((0.7, False), (0.85, True)):  # at the clean input; at the border
        with pytest.raises(ValueError, match=r"^model\(inputs\) must be finite"):
            robust_margin(Watched(limit), inputs, target, 0.1, multi_targeted=multi_targeted)
