"""The kinds of models that are measured though a layer that is called is not what it seems.

Per-sample Jacobians have a short formula for linear layers; here it would be wrong.
"""

import torch
from torch import Tensor, nn
from zoo_models import N_CLASSES, RIGHT, WIDTH, Written, flat, head, right

__all__ = ["RIGHT"]


@right(flat)
def auxiliary_head():
    """Run with the others, and of no use for the logits."""

    def forward(model: Written, x: Tensor) -> Tensor:
        hidden = torch.tanh(model.body(x))
        model.auxiliary(hidden)
        return model.head(hidden)

    return Written(forward, body=nn.Linear(WIDTH, 5), auxiliary=nn.Linear(5, 2), head=head(5))


@right(flat)
def gradient_of_an_energy():
    """The layer's weight is met twice: by the layer, and by the gradient through it."""

    def forward(model: Written, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            energy = model.energy(torch.tanh(model.body(x))).sum()
            slope = torch.autograd.grad(energy, x, create_graph=True)[0]
        return model.head(slope)

    return Written(forward, body=nn.Linear(WIDTH, 5), energy=nn.Linear(5, 1), head=head())


@right(flat)
def gradient_by_torch_func():
    def forward(model: Written, x: Tensor) -> Tensor:
        slope = torch.func.grad(lambda row: torch.tanh(model.body(row)).square().sum())
        return model.head(torch.func.vmap(slope)(x))

    return Written(forward, body=nn.Linear(WIDTH, 5), head=head())


@right(flat)
def weights_masked_by_functional_call():
    """The layer is called with other tensors, made of its weights, which are back afterwards."""

    def forward(model: Written, x: Tensor) -> Tensor:
        inner = {name: p * model.mask for name, p in model.inner.named_parameters()}
        return model.head(torch.tanh(torch.func.functional_call(model.inner, inner, (x,))))

    mask = torch.tensor([1.0, 0.5, 0.0, 2.0])
    return Written(forward, inner=nn.Linear(WIDTH, WIDTH), mask=mask, head=head())


@right(flat, calmo="robust_weight > 0.*gradients that it takes")
def weights_after_a_step_of_training_inside():
    """As in meta-learning: the layer is called with its weights less their gradient."""

    def forward(model: Written, x: Tensor) -> Tensor:
        with torch.enable_grad():
            weights = dict(model.inner.named_parameters())
            loss = torch.func.functional_call(model.inner, weights, (model.example,)).square().sum()
            slope = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            after = {name: w - 0.1 * g for (name, w), g in zip(weights.items(), slope, strict=True)}
            return torch.func.functional_call(model.inner, after, (torch.tanh(model.body(x)),))

    example = torch.ones(1, WIDTH)
    return Written(forward, inner=head(), body=nn.Linear(WIDTH, WIDTH), example=example)


@right(flat)
def weights_made_by_another_network():
    """The layer's own weights have no part in the logits, though it is called."""

    def forward(model: Written, x: Tensor) -> Tensor:
        weight = model.maker.view(N_CLASSES, WIDTH).square()
        return torch.func.functional_call(model.inner, {"weight": weight}, (x,))

    return Written(forward, inner=head(), maker=nn.Parameter(torch.rand(WIDTH * N_CLASSES)))


@right(flat)
def layers_with_a_forward_of_their_own():
    """As adapters are set on a model that is there already."""
    model = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), head(5))
    for layer in (model[0], model[2]):
        layer.forward = lambda x, plain=layer.forward: 2 * plain(x)
    return model
