"""CalMO written the straightforward way, term by term, sharing nothing between the terms.

It is what `calibcourse.losses.CalMO` is measured against: the same numbers, more passes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def reference_calmo(
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    robust_weight: float = 0.5,
    smooth_weight: float = 0.01,
    epsilon: float = 8 / 255,
    steps: int = 3,
    step_size: float = 2 / 255,
    input_gradients_only: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Total, cross-entropy, robust term and smoothness term, all with their graphs; L∞ only.

    The attack calls `backward()` and clears the gradients that this leaves in the parameters, as
    tutorials do; with `input_gradients_only` it asks autograd for the gradient of the input alone.
    """
    logits = model(inputs)
    cross_entropy = nn.functional.cross_entropy(logits, target)
    with batch_statistics_unrecorded(model):
        adversarial = pgd_linf(
            model, inputs, target, epsilon, steps, step_size, input_gradients_only
        )
        p, q = logits.softmax(1), model(adversarial).softmax(1)
        robust = (p * (p.log() - q.log())).sum(1).mean()
        smooth = squared_margin_gradient(model, inputs, target).mean()
    total = cross_entropy + robust_weight * robust + smooth_weight * smooth
    return total, cross_entropy, robust, smooth


def pgd_linf(
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    epsilon: float,
    steps: int,
    step_size: float,
    input_gradients_only: bool,
) -> Tensor:
    """Projected gradient ascent on the cross-entropy, from the clean input."""
    adversarial = inputs.clone()
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = nn.functional.cross_entropy(model(adversarial), target)
        if input_gradients_only:
            (gradient,) = torch.autograd.grad(loss, adversarial)
        else:
            loss.backward()
            gradient = adversarial.grad
            model.zero_grad()
        adversarial = adversarial.detach() + step_size * gradient.sign()
        adversarial = torch.min(torch.max(adversarial, inputs - epsilon), inputs + epsilon)
        adversarial = adversarial.clamp(0, 1)
    return adversarial


def squared_margin_gradient(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    """Squared length of the gradient of every sample's margin, (N,), differentiable."""
    point = inputs.clone().requires_grad_()
    logits = model(point)
    label = nn.functional.one_hot(target, logits.shape[1]).bool()
    rival = logits.masked_fill(label, -torch.inf).amax(1)
    margin = logits[label] - rival
    (gradient,) = torch.autograd.grad(margin.sum(), point, create_graph=True)
    return (gradient**2).flatten(1).sum(1)


@contextmanager
def batch_statistics_unrecorded(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm use the statistics of the batch without moving its running ones."""
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
