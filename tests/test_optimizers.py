"""Every optimizer against a step written out by hand, and the libraries against each other."""

import math
from collections.abc import Callable

import pytest
import pytorch_optimizer
import torch
from torch import Tensor, nn

from calibcourse.optimizers import OPTIMIZERS, make_optimizer

SIMPLE = [name for name in OPTIMIZERS if name != "bulk_sgd"]  # needs no images

# float64 throughout: a step by hand and the optimizer's differ by rounding only.
EXACT = dict(rtol=1e-12, atol=1e-14)


class Quadratic(nn.Module):
    """L(θ) = ½ θᵀ A θ, so that the gradient is Aθ and the Hessian A."""

    def __init__(self, curvature: Tensor, start: Tensor):
        super().__init__()
        self.curvature = curvature
        self.theta = nn.Parameter(start.clone())

    def loss(self) -> Tensor:
        return 0.5 * self.theta @ self.curvature @ self.theta

    def closure(self) -> Tensor:
        self.zero_grad()
        loss = self.loss()
        loss.backward()
        return loss


A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0], dtype=torch.float64)
GRADIENT = torch.tensor([1.0, -3.0], dtype=torch.float64)  # A @ START


def two_steps(name: str, **options) -> tuple[Tensor, Tensor]:
    model = Quadratic(A, START)
    optimizer = make_optimizer(name, model, lr=0.1, **options)
    after = []
    for _ in range(2):
        optimizer.step(model.closure)
        after.append(model.theta.detach().clone())
    return after[0], after[1]


@pytest.mark.parametrize("name", ["gd", "sgd"])
def test_gradient_descent_by_hand(name):
    first, second = two_steps(name)
    torch.testing.assert_close(first, torch.tensor([0.9, -1.7], dtype=torch.float64), **EXACT)
    # A @ (0.9, -1.7) = (1.0, -2.5)
    torch.testing.assert_close(second, torch.tensor([0.8, -1.45], dtype=torch.float64), **EXACT)


def test_momentum_by_hand():
    _, second = two_steps("sgd", momentum=0.9)
    # velocity 0.9 (1, -3) + (1, -2.5) = (1.9, -5.2), from (0.9, -1.7)
    torch.testing.assert_close(second, torch.tensor([0.71, -1.18], dtype=torch.float64), **EXACT)


def test_weight_decay_by_hand():
    first, _ = two_steps("sgd", weight_decay=0.5)
    torch.testing.assert_close(first, START - 0.1 * (GRADIENT + 0.5 * START), **EXACT)
    first, _ = two_steps("gd", weight_decay=0.5)
    torch.testing.assert_close(first, START - 0.1 * (GRADIENT + 0.5 * START), **EXACT)


def test_adamw_by_hand():
    first, second = two_steps("adamw", weight_decay=0.5)
    # The first step is the gradient's sign, whatever its size (up to eps = 1e-8), after the
    # decoupled decay by 1 - lr * 0.5.
    expected = 0.95 * START - 0.1 * GRADIENT / (GRADIENT.abs() + 1e-8)
    torch.testing.assert_close(first, expected, **EXACT)
    gradient = A @ first
    mean = (0.9 * 0.1 * GRADIENT + 0.1 * gradient) / (1 - 0.9**2)
    square = (0.999 * 0.001 * GRADIENT**2 + 0.001 * gradient**2) / (1 - 0.999**2)
    expected = 0.95 * first - 0.1 * mean / (square.sqrt() + 1e-8)
    torch.testing.assert_close(second, expected, rtol=1e-10, atol=1e-12)


def test_sam_by_hand():
    first, second = two_steps("sam", rho=0.5)
    by_hand = START
    for seen in (first, second):
        gradient = A @ by_hand
        uphill = by_hand + 0.5 * gradient / gradient.norm()
        by_hand = by_hand - 0.1 * (A @ uphill)
        # 1e-12 is added to the gradient's norm of about 3, against a division by zero.
        torch.testing.assert_close(seen, by_hand, rtol=1e-11, atol=1e-11)


def test_sam_with_momentum_keeps_velocity_of_perturbed_gradients():
    _, second = two_steps("sam", rho=0.5, momentum=0.9)
    theta, velocity = START, torch.zeros(2, dtype=torch.float64)
    for _ in range(2):
        gradient = A @ theta
        velocity = 0.9 * velocity + A @ (theta + 0.5 * gradient / gradient.norm())
        theta = theta - 0.1 * velocity
    torch.testing.assert_close(second, theta, rtol=1e-11, atol=1e-11)


def test_sam_of_radius_zero_is_gradient_descent():
    for ours, plain in zip(two_steps("sam", rho=0.0), two_steps("gd"), strict=True):
        torch.testing.assert_close(ours, plain, **EXACT)


@pytest.mark.parametrize("name", SIMPLE)
def test_step_returns_the_loss_before_the_update(name):
    model = Quadratic(A, START)
    loss = make_optimizer(name, model, lr=0.1).step(model.closure)
    assert float(loss.detach()) == pytest.approx(0.5 * float(START @ A @ START))


# --- Muon


class Matrices(nn.Module):
    """A wide, a tall and a square matrix with a fixed random gradient per step."""

    def __init__(self, shapes=((5, 12), (12, 5), (6, 6))):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.parts = nn.ParameterList(torch.randn(s, generator=generator) for s in shapes)
        self.generator = torch.Generator().manual_seed(1)

    def closure(self) -> Tensor:
        self.zero_grad()
        loss = sum((p * torch.randn(p.shape, generator=self.generator)).sum() for p in self.parts)
        loss.backward()
        return loss


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_muon_equals_torchs_own_on_matrices(nesterov, weight_decay):
    ours, theirs = Matrices(), Matrices()
    settings = dict(momentum=0.9, nesterov=nesterov, weight_decay=weight_decay)
    optimizer = make_optimizer("muon", ours, 0.1, **settings)
    peer = torch.optim.Muon(theirs.parameters(), 0.1, **settings)
    for _ in range(5):
        optimizer.step(ours.closure)
        peer.step(theirs.closure)
    for a, b in zip(ours.parts, theirs.parts, strict=True):
        # Both iterate in bfloat16 (relative precision 2^-8 = 4e-3); five steps of entries of size
        # up to 0.1 may differ by 5 * 0.1 * 4e-3.
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)


def test_muon_step_has_singular_values_near_one_at_any_gradient_scale():
    for scale in (1e-3, 1e3):
        matrix = Matrices(((8, 20),))
        before = matrix.parts[0].detach().clone()
        optimizer = make_optimizer("muon", matrix, 1.0)

        def closure(matrix=matrix, scale=scale):
            loss = matrix.closure() * scale
            for parameter in matrix.parameters():
                parameter.grad *= scale
            return loss

        optimizer.step(closure)
        values = torch.linalg.svdvals(before - matrix.parts[0].detach())
        # Five quintic steps send singular values to about [0.7, 1.2] (arXiv 2502.16982, Sec. 2.1).
        assert values.min() > 0.6 and values.max() < 1.3


def test_muon_treats_a_kernel_as_channels_by_rest_and_vectors_like_adamw():
    gradient = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    bias_gradient = torch.tensor([1.0, -2.0, 3.0, -4.0])
    kernel = nn.Conv2d(3, 4, 2)
    before = {name: p.detach().clone() for name, p in kernel.named_parameters()}
    flat = nn.Linear(12, 4, bias=False)
    with torch.no_grad():
        flat.weight.copy_(kernel.weight.reshape(4, 12))

    def kernel_closure():
        kernel.weight.grad, kernel.bias.grad = gradient.clone(), bias_gradient.clone()
        return torch.zeros(())

    def flat_closure():
        flat.weight.grad = gradient.reshape(4, 12).clone()
        return torch.zeros(())

    make_optimizer("muon", kernel, 0.1, adamw_lr=0.01, weight_decay=0.5).step(kernel_closure)
    make_optimizer("muon", flat, 0.1, weight_decay=0.5).step(flat_closure)
    torch.testing.assert_close(kernel.weight.detach().reshape(4, 12), flat.weight.detach())
    # Adam's first step is lr times the sign, after the decoupled decay by 1 - lr * 0.5.
    step = (1 - 0.01 * 0.5) * before["bias"] - kernel.bias.detach()
    torch.testing.assert_close(step, 0.01 * bias_gradient.sign(), rtol=1e-5, atol=0)


class Convolutional(nn.Sequential):
    """A network with kernels, matrices of two shapes, biases and norms, on fixed images."""

    def __init__(self, memory_format: torch.memory_format = torch.contiguous_format):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 6, 3)
            super().__init__(*layers, nn.Flatten(), nn.Linear(24, 3))
        self.to(memory_format=memory_format)
        self.inputs = torch.randn(9, 2, 6, 6, generator=torch.Generator().manual_seed(1))

    def closure(self) -> Tensor:
        self.zero_grad()
        loss = nn.functional.cross_entropy(self(self.inputs), torch.arange(9) % 3)
        loss.backward()
        return loss

    def after(self, step: Callable[[Callable[[], Tensor]], object], count: int = 10) -> Tensor:
        """All parameters after so many steps."""
        for _ in range(count):
            step(self.closure)
        return nn.utils.parameters_to_vector(self.parameters()).detach()


@pytest.mark.parametrize("options", [{}, dict(nesterov=False, weight_decay=0.1, adamw_lr=0.01)])
def test_muon_is_that_of_the_recorded_runs(options):
    """They were made with pytorch-optimizer: the same to the last bit."""
    ours, theirs = Convolutional(), Convolutional()
    groups = [
        dict(
            params=[p for p in theirs.parameters() if (p.ndim >= 2) == matrices], use_muon=matrices
        )
        for matrices in (True, False)
    ]
    decay = options.get("weight_decay", 0.0)
    peer = pytorch_optimizer.Muon(groups, lr=0.02, adamw_wd=decay, **options)
    moved = ours.after(make_optimizer("muon", ours, 0.02, **options).step)
    assert torch.equal(moved, theirs.after(peer.step))


def test_muon_moves_kernels_in_any_memory_format():
    plain, channels_last = Convolutional(), Convolutional(torch.channels_last)
    start = plain[3].weight.detach().clone()
    for model in (plain, channels_last):
        make_optimizer("muon", model, 0.02).step(model.closure)
    assert not torch.equal(plain[3].weight, start)
    # Gradients summed in another order, 1e-7 of them, may round to another bfloat16, 4e-3.
    torch.testing.assert_close(channels_last[3].weight, plain[3].weight, rtol=0, atol=0.02 * 4e-3)


# --- SAM


@pytest.mark.parametrize("options", [{}, dict(rho=0.2, momentum=0.9, weight_decay=0.01)])
def test_sam_is_that_of_the_recorded_runs(options):
    """They were made with pytorch-optimizer, whose second pass moves BatchNorm's statistics."""
    ours, theirs = Convolutional(), Convolutional()
    peer = pytorch_optimizer.SAM(theirs.parameters(), torch.optim.SGD, lr=0.1, **options)

    def step(closure: Callable[[], Tensor]) -> None:
        closure()
        peer.step(closure)

    assert torch.equal(
        ours.after(make_optimizer("sam", ours, 0.1, **options).step), theirs.after(step)
    )


def test_sam_gives_every_group_its_own_settings_and_leaves_unused_parameters_alone():
    model = Quadratic(A, START)
    model.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = make_optimizer("sam", model, 0.1)
    optimizer.add_param_group({"params": [torch.ones(1, requires_grad=True)], "rho": 0.3})
    assert [group["rho"] for group in optimizer.param_groups] == [0.05, 0.3]
    optimizer.step(model.closure)
    assert model.theta.tolist() != START.tolist()
    assert model.unused.tolist() == [1.0, 1.0]


def test_sam_draws_no_random_numbers_of_its_own():
    model, draws = Quadratic(A, START), []

    def closure() -> Tensor:
        draws.append(torch.rand(()).item())
        return model.closure()

    torch.manual_seed(0)
    make_optimizer("sam", model, 0.1).step(closure)
    torch.manual_seed(0)
    assert draws == [torch.rand(()).item(), torch.rand(()).item()]


# --- SAM and BatchNorm


@pytest.mark.parametrize("momentum", [0.1, None])
def test_second_pass_of_sam_leaves_running_statistics_alone(momentum):
    torch.manual_seed(0)
    inputs, target = torch.randn(20, 6), torch.randint(0, 3, (20,))

    def train(name: str, steps: int = 2) -> nn.Module:
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.BatchNorm1d(6, momentum=momentum),
            nn.BatchNorm1d(6, track_running_stats=False),
            nn.Linear(6, 3),
        )

        def closure():
            model.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), target)
            loss.backward()
            return loss

        optimizer = make_optimizer(name, model, 0.1)
        for _ in range(steps):
            optimizer.step(closure)
        return model

    # BatchNorm comes first, so its statistics depend on the inputs alone: one pass, one update.
    (sam, stateless, _), (plain, *_) = train("sam"), train("sgd")
    assert sam.num_batches_tracked == plain.num_batches_tracked == 2
    assert torch.equal(sam.running_mean, plain.running_mean)
    assert torch.equal(sam.running_var, plain.running_var)
    assert sam.track_running_stats and not stateless.track_running_stats


def test_statistics_thaw_even_if_the_second_pass_fails():
    model = nn.Sequential(nn.BatchNorm1d(2))
    calls = []

    def closure():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("second pass")
        model.zero_grad()
        loss = model(torch.eye(2)).square().sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="second pass"):
        make_optimizer("sam", model, 0.1).step(closure)
    assert model[0].track_running_stats


# --- arguments and state


def test_unknown_names_and_options_list_the_choices():
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"^name must .* adamw, bulk_sgd, gd, muon, sam, sgd; "):
        make_optimizer("adam", model, 0.1)
    with pytest.raises(ValueError, match=r"option of 'sam' .* momentum, rho, .*; got 'radius'"):
        make_optimizer("sam", model, 0.1, radius=0.1)
    with pytest.raises(ValueError, match="option of 'gd' must be one of weight_decay"):
        make_optimizer("gd", model, 0.1, momentum=0.9)
    with pytest.raises(ValueError, match="inputs must be given to 'bulk_sgd'"):
        make_optimizer("bulk_sgd", model, 0.1)


IMPOSSIBLE = [
    *(("sgd", {"lr": lr}) for lr in (0.0, -1.0, math.inf, math.nan)),
    *(("muon", {"momentum": momentum}) for momentum in (-0.1, 1.1)),
    *(("muon", {option: -0.1}) for option in ("weight_decay", "adamw_lr")),
    *(("sam", {option: -0.1}) for option in ("rho", "momentum", "weight_decay")),
    *(("bulk_sgd", {option: 0}) for option in ("directions", "refresh")),
]


@pytest.mark.parametrize(("name", "options"), IMPOSSIBLE)
def test_an_impossible_option_is_named(name, options):
    needed = {"inputs": torch.ones(1, 2)} if name == "bulk_sgd" else {}
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        make_optimizer(name, nn.Linear(2, 2), **{"lr": 0.1} | needed | options)


# What the docstring says.
DEFAULTS = {
    "gd": {"weight_decay": 0.0},
    "sgd": {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    "muon": {"momentum": 0.95, "nesterov": True, "weight_decay": 0.0},
    "sam": {"rho": 0.05, "momentum": 0.0, "weight_decay": 0.0},
    "bulk_sgd": {"directions": 1, "refresh": 20},
}


@pytest.mark.parametrize(("name", "expected"), DEFAULTS.items(), ids=DEFAULTS)
def test_defaults_are_those_of_the_docstring(name, expected):
    needed = {"inputs": torch.ones(1, 2)} if name == "bulk_sgd" else {}
    group = make_optimizer(name, nn.Linear(2, 2), 0.1, **needed).param_groups[0]
    assert {option: group[option] for option in expected} == expected


OTHERS = {
    "sgd": {"momentum": 0.5, "nesterov": True, "weight_decay": 0.25},
    "adamw": {"betas": (0.5, 0.75), "eps": 0.25, "weight_decay": 0.25},
    "muon": {"momentum": 0.5, "nesterov": False, "weight_decay": 0.25},
    "sam": {"rho": 0.5, "momentum": 0.5, "weight_decay": 0.25},
}


@pytest.mark.parametrize(("name", "options"), OTHERS.items(), ids=OTHERS)
def test_options_arrive(name, options):
    group = make_optimizer(name, nn.Linear(2, 2), 0.1, **options).param_groups[0]
    assert {option: group[option] for option in options} == options


def test_frozen_parameters_are_left_out_and_all_frozen_is_refused():
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    groups = make_optimizer("muon", model, 0.1).param_groups
    assert [p is model.bias for group in groups for p in group["params"]] == [True]
    model.bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"^model must have a trainable parameter, got none$"):
        make_optimizer("sgd", model, 0.1)
    with pytest.raises(ValueError, match="rho"):
        make_optimizer("sam", nn.Linear(2, 2), 0.1, rho=-1.0)


@pytest.mark.parametrize("name", SIMPLE)
def test_state_survives_a_save(name, tmp_path):
    def run(interrupted: bool) -> Tensor:
        model = Quadratic(A, START)
        optimizer = make_optimizer(name, model, lr=0.1)
        for step in range(6):
            if interrupted and step == 3:
                torch.save(optimizer.state_dict(), tmp_path / "state")
                optimizer = make_optimizer(name, model, lr=0.1)
                optimizer.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
            optimizer.step(model.closure)
        return model.theta.detach()

    assert torch.equal(run(interrupted=True), run(interrupted=False))
