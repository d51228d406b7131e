"""Models x functions: each right to 1e-8 in float64, or refused by an error with the remedy."""

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import zoo_reference as reference
from torch import Tensor, nn
from zoo_models import N_CLASSES, N_SAMPLES, Kind
from zoo_refused import REFUSED
from zoo_right import RIGHT as PLAIN
from zoo_right_layers import RIGHT as LAYERS

import calibcourse as cc
from calibcourse.curvature import (
    GaussNewton,
    Hessian,
    batch_sharpness,
    gauss_newton_sharpness,
    jacobian_norms,
    trace,
)

TOLERANCE = 1e-8  # relative: differences along a line give ten digits, everything else more
LOSSES = ("cross_entropy", "mse")
RIGHT = PLAIN | LAYERS


def make(kind: Kind) -> tuple[nn.Module, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = kind.build()
        if isinstance(model, nn.Module) and "two_dtypes" not in kind.build.__name__:
            model = model.double()
        return model, kind.inputs(), torch.arange(N_SAMPLES) % N_CLASSES


def close(found: Tensor | float, expected: Tensor | float, tolerance: float = TOLERANCE) -> None:
    found, expected = (
        torch.as_tensor(value, dtype=torch.float64).detach() for value in (found, expected)
    )
    assert found.shape == expected.shape
    assert float((found - expected).norm()) <= tolerance * float(expected.norm())


def vector_like(model: nn.Module, seed: int = 0) -> Tensor:
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64)


# --- what each function should find ---------------------------------------------------------------


def check_gauss_newton(model, inputs, target):
    for loss in LOSSES:
        dense = reference.gauss_newton(model, inputs, loss)
        vector = vector_like(model)
        close(GaussNewton(model, inputs, loss).matvec(vector), dense @ vector)
        close(GaussNewton(model, inputs, loss, batch_size=3).matvec(vector), dense @ vector)
        close(trace(GaussNewton(model, inputs, loss), exact=True).value, dense.trace())
        top = gauss_newton_sharpness(model, inputs, loss=loss, tol=1e-6, max_matvecs=len(dense))
        close(top.value, torch.linalg.eigvalsh(dense)[-1])


def check_jacobian(model, inputs, target):
    expected = torch.linalg.matrix_norm(reference.jacobians(model, inputs), 2)
    close(jacobian_norms(model, inputs), expected)
    close(jacobian_norms(model, inputs, chunk_size=3), expected)


def check_ladder(model, inputs, target):
    j = reference.jacobians(model, inputs)
    norms = torch.linalg.matrix_norm(j, 2).square()
    h = reference.logit_hessians(model, inputs, "cross_entropy")
    each = torch.linalg.eigvalsh(j.mT @ h @ j)[:, -1]
    ladder = cc.curvature_ladder(model, inputs, target, tol=1e-6, max_matvecs=j.shape[2])
    assert ladder.holds
    close(ladder.u0, torch.linalg.eigvalsh(reference.gauss_newton(model, inputs, LOSSES[0]))[-1])
    close(ladder.u1, each.mean())
    close(ladder.u2, (norms * torch.linalg.eigvalsh(h)[:, -1]).mean())
    assert cc.direct_sandwich(model, inputs, target).holds
    assert cc.mse_ladder(model, inputs).holds


def check_hessian(model, inputs, target):
    for loss in LOSSES:
        vector = vector_like(model)
        product = reference.hessian_product(model, inputs, target, loss, vector)
        operator = Hessian(model, inputs, target, loss)  # after: the reference moves the parameters
        close(operator.gradient(), reference.gradient(model, inputs, target, loss))
        close(operator.matvec(vector), product)
    expected, batches = 0.0, [(inputs[:2], target[:2]), (inputs[2:], target[2:])]
    for batch in batches:
        g = reference.gradient(model, *batch, "cross_entropy")
        expected += g @ reference.hessian_product(model, *batch, "cross_entropy", g) / (g @ g) / 2
    close(batch_sharpness(model, batches), expected)


def check_inputs(model, inputs, target):
    clean = reference.margins(reference.logits_of(model, inputs), target).detach()
    close(
        cc.input_margin_gradient(model, inputs, target),
        reference.margin_gradients(model, inputs, target),
    )
    found = cc.robust_margin(model, inputs, target, 0.01, steps=2)
    point = found.adversarial_inputs
    close(found.margin, reference.margins(reference.logits_of(model, point), target))
    assert (found.margin <= clean).all() and (found.margin < clean).any()
    attacked = cc.pgd(model, inputs, target, 0.01, steps=2)
    for moved in (point, attacked):
        assert float((moved - inputs).abs().max()) <= 0.01 + 1e-15


def check_losses(model, inputs, target):
    logits = reference.logits_of(model, inputs).detach()
    p = logits.softmax(1).gather(1, target[:, None])[:, 0]
    one_hot = F.one_hot(target, N_CLASSES)
    close(cc.CrossEntropy()(model, inputs, target).total, -p.log().mean())
    close(cc.FocalLoss(2.0)(model, inputs, target).total, -((1 - p) ** 2 * p.log()).mean())
    close(cc.MeanSquaredError()(model, inputs, target).total, (logits - one_hot).square().mean())


def check_calmo(model, inputs, target):
    loss = cc.CalMO(robust_weight=0.0, smooth_weight=1.0)

    def total() -> Tensor:
        return (
            reference.sample_loss(reference.logits_of(model, inputs), target, "cross_entropy")
            + reference.margin_gradients(model, inputs, target).square().sum()
        ).detach() / N_SAMPLES

    terms = loss(model, inputs, target)
    close(terms.total, total())
    terms.total.backward()
    vector = vector_like(model)
    slope = reference.flat([p.grad for p in reference.trainable(model)], model) @ vector
    close(slope, reference.along(model, vector, total))
    both = cc.CalMO()(model, inputs, target)
    both.total.backward()
    assert float(both.robust) > 0


GROUPS: dict[str, tuple[str, Callable]] = {
    "gauss_newton": ("curvature", check_gauss_newton),
    "jacobian": ("curvature", check_jacobian),
    "ladder": ("curvature", check_ladder),
    "hessian": ("hessian", check_hessian),
    "margins and attacks": ("margins", check_inputs),
    "losses": ("losses", check_losses),
    "calmo": ("calmo", check_calmo),
}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str, group: str):
    kind, (refusal, check) = RIGHT[name], GROUPS[group]
    model, inputs, target = make(kind)
    before, modes = inputs.clone(), [module.training for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    weights = [(p, p.detach().clone()) for p in model.parameters()]
    chance = torch.get_rng_state()
    words = kind.refusals.get(refusal)
    if words:
        with pytest.raises((ValueError, TypeError), match=words):
            check(model, inputs, target)
    else:
        check(model, inputs, target)
    assert torch.equal(inputs, before) or words  # a loss notices after the forward pass
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    # The very same tensors: torch may leave others behind, or write into them.
    for now, (then, value) in zip(model.parameters(), weights, strict=True):
        assert now is then and torch.equal(now, value)
    assert torch.equal(torch.get_rng_state(), chance)


CALLS: dict[str, tuple[str, Callable]] = {
    "GaussNewton": ("curvature", lambda m, x, y: GaussNewton(m, x).matvec(vector_like(m))),
    "jacobian_norms": ("jacobian", lambda m, x, y: jacobian_norms(m, x)),
    "curvature_ladder": ("curvature", cc.curvature_ladder),
    "Hessian": ("hessian", Hessian),
    "batch_sharpness": ("hessian", lambda m, x, y: batch_sharpness(m, [(x, y)])),
    "input_margin_gradient": ("margins", cc.input_margin_gradient),
    "robust_margin": ("margins", lambda m, x, y: cc.robust_margin(m, x, y, 0.01)),
    "pgd": ("margins", lambda m, x, y: cc.pgd(m, x, y, 0.01)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, call: str):
    kind, (group, function) = REFUSED[name], CALLS[call]
    model, inputs, target = make(kind)
    words = kind.refusals.get(group, kind.refusals["curvature"])
    before = inputs.clone()
    chance = torch.get_rng_state()
    if words:
        with pytest.raises((ValueError, TypeError)) as caught:
            function(model, inputs, target)
        assert re.search(words, str(caught.value), re.DOTALL), str(caught.value)
    else:
        function(model, inputs, target)
    assert torch.equal(inputs, before)
    assert torch.equal(torch.get_rng_state(), chance)
