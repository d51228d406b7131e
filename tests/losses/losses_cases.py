"""What the tests of losses share."""

import torch
from torch import Tensor, nn

from calibcourse.losses import CalMO, CrossEntropy, FocalLoss, LossTerms, MeanSquaredError

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
