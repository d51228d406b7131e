"""Losses: closed forms, finite differences, an attack by hand, a plain twin, invariances."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks.reference_calmo import reference_calmo, squared_margin_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from calibcourse.losses import CalMO, CrossEntropy, FocalLoss, LossTerms, MeanSquaredError
from calibcourse.models import small_cnn

CALMO = CalMO(smooth_weight=0.1, epsilon=0.05, step_size=0.02)
CALMO_L2 = CalMO(smooth_weight=0.1, epsilon=0.1, step_size=0.04, norm="l2")
EVERY_LOSS = [CALMO, CALMO_L2, CrossEntropy(), CrossEntropy(0.1), FocalLoss(), MeanSquaredError()]
# Rounding in float64 over a handful of layers; a wrong formula is wrong by far more.
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def tanh_mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():  # larger weights: a curved function with confident predictions
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def batchnorm_cnn(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 3),
    ).double()


def batch(n: int = 7, n_classes: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images of 2 x 3 pixels, some of them at the ends of the range, and labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(n, 1, 2, 3, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    return inputs.clamp(0, 1), torch.randint(n_classes, (n,), generator=generator)


def linear(weight: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    weight = torch.tensor(weight, dtype=torch.float64)
    model = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(torch.tensor(bias or [0.0] * len(weight), dtype=torch.float64))
    return model


def passes(loss, model: nn.Module, inputs: Tensor, target: Tensor) -> tuple[LossTerms, list]:
    """The terms, and the inputs of every forward pass: the last one sees the attack's result."""
    seen = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    terms = loss(model, inputs, target)
    handle.remove()
    return terms, seen


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


# --- Closed forms -------------------------------------------------------------------------------


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


# --- The gradient in the parameters ---------------------------------------------------------------


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


# --- The attack -----------------------------------------------------------------------------------


def attack_by_hand(model: nn.Sequential, x: np.ndarray, y: int, loss: CalMO) -> np.ndarray:
    """Projected gradient ascent on one sample of `tanh_mlp`, with the backward pass by hand."""
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.parameters())
    point = x.copy()
    for _ in range(loss.steps):
        hidden = np.tanh(w1 @ point + b1)
        z = w2 @ hidden + b2
        p = np.exp(z - z.max())
        p /= p.sum()
        p[y] -= 1
        gradient = w1.T @ ((w2.T @ p) * (1 - hidden**2))
        if loss.norm == "linf":
            point = point + loss.step_size * np.sign(gradient)
            point = np.minimum(np.maximum(point, x - loss.epsilon), x + loss.epsilon)
        else:
            blocked = ((point <= 0) & (gradient < 0)) | ((point >= 1) & (gradient > 0))
            gradient[blocked] = 0
            point = point + loss.step_size * gradient / np.sqrt((gradient**2).sum())
            length = np.sqrt(((point - x) ** 2).sum())
            if length > loss.epsilon:
                point = x + (point - x) * loss.epsilon / length
        point = np.clip(point, 0, 1)
    return point


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("smooth_weight", [0.0, 0.1])
def test_attack_against_one_written_by_hand(steps, norm, smooth_weight):
    model, (inputs, target) = tanh_mlp(), batch(20)
    loss = CalMO(0.5, smooth_weight, epsilon=0.1, steps=steps, step_size=0.04, norm=norm)
    _, seen = passes(loss, model, inputs, target)
    by_hand = [
        attack_by_hand(model, x.numpy().ravel(), int(y), loss)
        for x, y in zip(inputs, target, strict=True)
    ]
    np.testing.assert_allclose(seen[-1].flatten(1).numpy(), by_hand, rtol=0, atol=1e-12)


def test_attack_of_a_network_in_train_mode_sees_the_statistics_of_the_batch():
    """It climbs the batch's summed cross-entropy with BatchNorm as the clean pass has it."""
    model, (inputs, target) = batchnorm_cnn().train(), batch()
    _, seen = passes(CALMO, model, inputs, target)
    twin, point = copy.deepcopy(model), inputs.clone()
    for _ in range(CALMO.steps):
        point.requires_grad_()
        total = F.cross_entropy(twin(point), target, reduction="sum")
        step = CALMO.step_size * torch.autograd.grad(total, point)[0].sign()
        point = (point.detach() + step).clamp(inputs - CALMO.epsilon, inputs + CALMO.epsilon)
        point = point.clamp(0, 1)
    torch.testing.assert_close(seen[-1], point, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype, scale", [(torch.float32, 1.0), (torch.bfloat16, 1.0)])
def test_attack_keeps_its_direction_where_the_network_is_sure(dtype, scale):
    # Margin about 60: p_y is 1 in float32, and softmax minus one-hot has lost the label's row,
    # which here is the only one that says what to do with the second pixel.
    model = linear([[60.0, 60.0], [0.0, 0.0], [0.0, 0.0]]).to(dtype)
    inputs = torch.full((1, 2), 0.5, dtype=dtype)
    _, seen = passes(CalMO(epsilon=0.1, step_size=0.1), model, inputs, torch.tensor([0]))
    assert (seen[-1] < 0.45).all()


@settings(max_examples=30)
@given(
    epsilon=st.floats(0, 0.5),
    step_size=st.floats(1e-3, 0.5),
    steps=st.integers(1, 4),
    norm=st.sampled_from(["linf", "l2"]),
    seed=st.integers(0, 1000),
)
def test_adversarial_inputs_stay_in_the_ball_and_terms_are_not_negative(
    epsilon, step_size, steps, norm, seed
):
    model, (inputs, target) = tanh_mlp(seed), batch(5, seed=seed)
    loss = CalMO(epsilon=epsilon, steps=steps, step_size=step_size, norm=norm)
    terms, seen = passes(loss, model, inputs, target)
    offset = (seen[-1] - inputs).flatten(1)
    length = offset.norm(dim=1) if norm == "l2" else offset.abs().amax(1)
    assert (length <= epsilon + 1e-12).all()  # the rounding of x + δ, below 1e-15
    assert seen[-1].min() >= 0 and seen[-1].max() <= 1
    assert terms.smooth >= 0
    assert terms.robust >= -1e-15  # a KL of nearly equal distributions rounds around 0
    if epsilon == 0:
        assert terms.robust == 0


# --- Against the straightforward implementation ---------------------------------------------------


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


# --- Special cases and their price ----------------------------------------------------------------


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


# --- What stays untouched -------------------------------------------------------------------------


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_running_statistics_are_those_of_one_clean_pass(loss):
    model, (inputs, target) = batchnorm_cnn().train(), batch()
    twin = copy.deepcopy(model)
    twin(inputs)
    loss(model, inputs, target).total.backward()
    for (name, ours), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_eval_mode_stays_and_is_used(loss):
    model, (inputs, target) = batchnorm_cnn().eval(), batch()
    before = copy.deepcopy(model.state_dict())
    terms = loss(model, inputs, target)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    # In eval mode samples do not see each other: the loss of a batch is the mean over its samples.
    alone = [loss(model, x[None], y[None]).total for x, y in zip(inputs, target, strict=True)]
    torch.testing.assert_close(terms.total, torch.stack(alone).mean(), **EXACT)


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_arguments_and_random_state_stay_untouched(loss):
    model, (inputs, target) = tanh_mlp(), batch()
    inputs.requires_grad_()
    kept, labels, random_state = inputs.detach().clone(), target.clone(), torch.get_rng_state()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    total = loss(model, inputs, target).total
    assert all((p.grad == 1).all() for p in model.parameters())
    assert torch.equal(inputs.detach(), kept) and torch.equal(target, labels)
    assert inputs.requires_grad and inputs.grad is None
    assert torch.equal(torch.get_rng_state(), random_state)
    assert loss(model, inputs, target).total.item() == total.item()  # to the last bit


def test_frozen_layers_stay_frozen():
    model, (inputs, target) = tanh_mlp(), batch()
    CALMO(model, inputs, target).total.backward()
    expected = model[3].weight.grad.clone()
    model.zero_grad()
    model[1].requires_grad_(False)
    CALMO(model, inputs, target).total.backward()
    assert model[1].weight.grad is None and not model[1].weight.requires_grad
    torch.testing.assert_close(model[3].weight.grad, expected, **EXACT)


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_same_values_without_gradients(loss):
    model, (inputs, target) = tanh_mlp(), batch()
    with torch.no_grad():
        quiet = loss(model, inputs, target)
        assert not torch.is_grad_enabled()
    assert not quiet.total.requires_grad
    terms = loss(model, inputs, target)
    for name in ("total", "cross_entropy", "robust", "smooth", "logits"):
        assert torch.equal(getattr(quiet, name), getattr(terms, name)), name


# --- Batches, dtypes, autocast, devices -----------------------------------------------------------


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_order_of_samples_and_shift_of_logits_do_not_matter(loss):
    model, (inputs, target) = tanh_mlp(), batch()
    terms = loss(model, inputs, target)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        loss(model, inputs[order], target[order]).total, terms.total, **EXACT
    )
    if not isinstance(loss, MeanSquaredError):
        with torch.no_grad():
            model[3].bias += 5.0
        torch.testing.assert_close(loss(model, inputs, target).total, terms.total, **EXACT)


@pytest.mark.parametrize("n", [1, 3])
def test_ragged_last_batch(n):
    for model in (small_cnn(), batchnorm_cnn().float()):
        shape = (n, 1, 28, 28) if isinstance(model[0], type(small_cnn()[0])) else (n, 1, 2, 3)
        terms = CalMO()(model, torch.rand(shape), torch.zeros(n, dtype=torch.int64))
        terms.total.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_autocast(loss):
    model, inputs, target = small_cnn(), torch.rand(8, 1, 28, 28), torch.arange(8)
    full = loss(model, inputs, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, seen = passes(loss, model, inputs, target)
    mixed.total.backward()
    # Every loss is computed in float32 on logits that were rounded to bfloat16 (3 digits).
    assert mixed.total.dtype == mixed.logits.dtype == torch.float32
    assert all(point.dtype == torch.float32 for point in seen)
    for name in ("total", "cross_entropy", "smooth"):
        ours, expected = getattr(mixed, name).item(), getattr(full, name).item()
        assert ours == pytest.approx(expected, rel=0.03), name
    # The KL is a difference of logits, hence noisier; where there is none it is exactly 0.
    assert mixed.robust.item() == pytest.approx(full.robust.item(), rel=0.5)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtypes(loss, dtype):
    model, (inputs, target) = tanh_mlp(), batch()
    exact = loss(model, inputs, target).total.item()
    terms = loss(model.to(dtype), inputs.to(dtype), target)
    terms.total.backward()
    assert terms.total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # bfloat16 has 8 bits: 0.4 % per operation, a few of them in a row.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    assert terms.total.item() == pytest.approx(exact, rel=tolerance)
    assert all(p.grad.dtype == dtype for p in model.parameters())


@pytest.mark.cuda
@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_cuda_gives_the_same_numbers(loss):
    model, (inputs, target) = batchnorm_cnn(), batch()
    here = loss(copy.deepcopy(model), inputs, target)
    there = loss(model.cuda(), inputs.cuda(), target.cuda())
    there.total.backward()
    for name in ("total", "cross_entropy", "robust", "smooth", "logits"):
        assert getattr(there, name).is_cuda
        torch.testing.assert_close(getattr(there, name).cpu(), getattr(here, name), **EXACT)


@pytest.mark.cuda
def test_cuda_autocast_in_float16():
    model, inputs, target = small_cnn().cuda(), torch.rand(8, 1, 28, 28), torch.arange(8)
    with torch.autocast("cuda", dtype=torch.float16):
        terms = CalMO()(model, inputs.cuda(), target.cuda())
    terms.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"robust_weight": -0.1}, ValueError, r"robust_weight must lie in \[0.0, inf\], got -0.1"),
        ({"smooth_weight": -1}, ValueError, "smooth_weight must lie in"),
        ({"smooth_weight": math.nan}, ValueError, "smooth_weight must lie in"),
        ({"epsilon": -1e-3}, ValueError, "epsilon must lie in"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 2.0}, TypeError, "steps must be an int"),
        ({"step_size": 0.0}, ValueError, r"step_size must lie in \(0.0, inf\), got 0.0"),
        ({"step_size": -0.1}, ValueError, "step_size must lie in"),
        ({"norm": "l1"}, ValueError, "norm must be one of l2, linf; got 'l1'"),
        ({"epsilon": "8/255"}, TypeError, "epsilon must be a real number"),
    ],
)
def test_bad_settings_of_calmo(options, error, message):
    with pytest.raises(error, match=message):
        CalMO(**options)


@pytest.mark.parametrize("make", [lambda: FocalLoss(-1.0), lambda: FocalLoss(math.inf)])
def test_bad_gamma(make):
    with pytest.raises(ValueError, match="gamma must lie in"):
        make()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_bad_label_smoothing(share):
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        CrossEntropy(share)


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
def test_inputs_outside_the_range_of_pixels(value):
    model, (inputs, target) = tanh_mlp(), batch()
    inputs[3, 0, 1, 2] = value
    for loss in (CALMO, CALMO_L2, CalMO(smooth_weight=0)):
        with pytest.raises(ValueError, match=r"inputs must lie inside .*\(0.0, 1.0\)"):
            loss(model, inputs, target)
    # Nothing is clipped where nothing is attacked.
    assert torch.isfinite(CalMO(robust_weight=0)(model, inputs, target).total)


class Poisoned(nn.Module):
    """Returns NaN in the pass of the given number."""

    def __init__(self, bad_pass: int):
        super().__init__()
        self.model, self.bad_pass, self.n_passes = tanh_mlp(), bad_pass, 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_passes += 1
        logits = self.model(x)
        return logits * math.nan if self.n_passes == self.bad_pass else logits


@pytest.mark.parametrize("bad_pass", [1, 2, 3, 4])
def test_logits_that_are_not_finite_in_any_pass(bad_pass):
    with pytest.raises(ValueError, match=r"model\(inputs\) must be finite, got 21 NaN"):
        CALMO(Poisoned(bad_pass), *batch())


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_bad_batches(loss):
    model, (inputs, target) = tanh_mlp(), batch()
    cases = [
        (Poisoned(1), inputs, target, ValueError, r"model\(inputs\) must be finite"),
        (model, inputs, target[:3], ValueError, r"target must have shape \(7,\), got \(3,\)"),
        (model, inputs, target + 1, ValueError, r"target must lie in 0..2"),
        (model, inputs, target.double(), TypeError, "target must have dtype torch.int64"),
        (model, inputs * math.nan, target, ValueError, "inputs must be finite"),
        (model, inputs[:0], target[:0], ValueError, "inputs must have shape"),
        (model, inputs.long(), target, TypeError, "inputs must have a floating dtype"),
        (nn.Identity(), inputs, target, ValueError, r"model\(inputs\) must have shape \(N, K\)"),
    ]
    for network, x, y, error, message in cases:
        with pytest.raises(error, match=message):
            loss(network, x, y)


def test_what_a_learner_sees():
    terms = CALMO(tanh_mlp(), *batch())
    assert repr(terms).startswith("LossTerms(total=") and repr(terms).endswith("logits=(7, 3))")
    assert "tensor" not in repr(terms)
    assert repr(FocalLoss()) == "FocalLoss(gamma=2.0)"
    assert CalMO() == CalMO(0.5, 0.01, 8 / 255, 3, 2 / 255, "linf")
