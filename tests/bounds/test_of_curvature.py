"""The ladder around the largest eigenvalue, also under mean squared error."""

import copy
import itertools
import math

import pytest
import torch
from bounds_cases import (
    RUNGS,
    network,
)
from torch import nn

from calibcourse.attacks import robust_margin
from calibcourse.bounds import (
    curvature_ladder,
    direct_sandwich,
    ece_bounds,
    mse_ladder,
)
from calibcourse.curvature import ConvergenceWarning, GaussNewton
from calibcourse.margins import true_margin


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
    with pytest.warns(ConvergenceWarning) as warned:
        rough = curvature_ladder(model, inputs, target, max_matvecs=1)
    assert len(warned) == 2  # of the last layer's block, and of the whole matrix
    assert "λ_max NOT converged" in repr(rough)


def test_train_mode_is_refused():
    model, inputs, target = network("convolution", 3, 0, torch.float32)
    for call in (curvature_ladder, direct_sandwich, lambda *args: mse_ladder(*args[:2])):
        with pytest.raises(ValueError, match=r"BatchNorm2d in train mode.*model\.eval\(\)"):
            call(model.train(), inputs, target)


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
