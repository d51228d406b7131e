"""References in float64, one sample at a time, by first derivatives only: no code of the package.

J_i comes from K backward passes of one sample. H v comes from gradients at four points along v, so
that no second derivative of torch enters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP = 3e-4  # in units of the direction's length: error STEP⁴ and 1e-16/STEP


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """(N, K), with a graph, from N calls."""
    return torch.cat([model(sample.clone()) for sample in inputs.split(1)])


def flat(parts: list[Tensor | None], model: nn.Module) -> Tensor:
    pairs = zip(parts, trainable(model), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])


def jacobians(model: nn.Module, inputs: Tensor) -> Tensor:
    """(N, K, d)."""
    rows = []
    for sample in inputs.split(1):
        n_classes = model(sample.clone()).shape[1]
        for k in range(n_classes):
            output = model(sample.clone())[0, k]
            rows.append(
                flat(torch.autograd.grad(output, trainable(model), allow_unused=True), model)
            )
    return torch.stack(rows).view(len(inputs), n_classes, -1)


def logit_hessians(model: nn.Module, inputs: Tensor, loss: str) -> Tensor:
    """(N, K, K), of one sample's loss in its logits."""
    with torch.no_grad():
        logits = logits_of(model, inputs)
    n_classes = logits.shape[1]
    if loss == "mse":
        return (2 / n_classes * torch.eye(n_classes).double()).expand(len(inputs), -1, -1)
    p = logits.softmax(1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def gauss_newton(model: nn.Module, inputs: Tensor, loss: str) -> Tensor:
    """(d, d)."""
    j, h = jacobians(model, inputs), logit_hessians(model, inputs, loss)
    return torch.einsum("nkd,nkl,nle->de", j, h, j) / len(inputs)


def sample_loss(logits: Tensor, target: Tensor, loss: str) -> Tensor:
    if loss == "mse":
        return (logits - F.one_hot(target, logits.shape[1])).square().mean(1).sum()
    return (logits.logsumexp(1) - logits.gather(1, target[:, None])[:, 0]).sum()


def gradient(model: nn.Module, inputs: Tensor, target: Tensor, loss: str) -> Tensor:
    """Of the mean loss, (d,)."""
    total = 0
    for sample, label in zip(inputs.split(1), target.split(1), strict=True):
        value = sample_loss(model(sample.clone()), label, loss)
        total = total + flat(torch.autograd.grad(value, trainable(model), allow_unused=True), model)
    return total / len(inputs)


def moved(model: nn.Module, step: Tensor) -> None:
    sizes = [p.numel() for p in trainable(model)]
    with torch.no_grad():
        for p, part in zip(trainable(model), step.split(sizes), strict=True):
            p.add_(part.view_as(p))


def along(model: nn.Module, direction: Tensor, function) -> Tensor:
    """Derivative of a function of the parameters along a direction, by five-point differences."""
    start = [p.detach().clone() for p in trainable(model)]
    step = STEP / float(direction.norm())
    total = 0
    for factor, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        moved(model, factor * step * direction)
        total = total + weight * function()
        with torch.no_grad():
            for p, value in zip(trainable(model), start, strict=True):
                p.copy_(value)
    return total / (12 * step)


def hessian_product(
    model: nn.Module, inputs: Tensor, target: Tensor, loss: str, vector: Tensor
) -> Tensor:
    return along(model, vector, lambda: gradient(model, inputs, target, loss))


def margins(logits: Tensor, target: Tensor) -> Tensor:
    own = logits.gather(1, target[:, None])[:, 0]
    return own - logits.scatter(1, target[:, None], -torch.inf).amax(1)


def margin_gradients(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    parts = []
    for sample, label in zip(inputs.split(1), target.split(1), strict=True):
        point = sample.clone().requires_grad_()
        margin = margins(model(point.clone()), label).sum()
        parts.append(torch.autograd.grad(margin, point)[0])
    return torch.cat(parts)
