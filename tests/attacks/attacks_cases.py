"""What the tests of attacks share."""

import torch
import torch.nn.functional as F

from calibcourse.models import mlp

NORMS = ("linf", "l2")


def perturbation_size(perturbation, norm):
    flat = perturbation.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def trained_mlp(steps=60):
    """A small network that has learned something, so that its margins are not all alike."""
    torch.manual_seed(0)
    inputs, teacher = torch.rand(64, 1, 6, 6), torch.randn(36, 5)
    target = (inputs.flatten(1) @ teacher).argmax(1)
    model = mlp((1, 6, 6), hidden=(32,), n_classes=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), target).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, inputs, target
