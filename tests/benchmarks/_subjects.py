"""What the comparisons work on: images of the embedded data set and networks trained on them."""

import copy

import torch
import torch.nn.functional as F
from _harness import Setting
from torch import nn

from calibcourse.data import Dataset, Split, load_dataset
from calibcourse.models import mlp


def dataset(setting: Setting) -> Dataset:
    return load_dataset("fashion_mnist_small").to(setting.device)


def images(setting: Setting, count: int) -> Split:
    """The first training images; 40 of them in a trial."""
    return dataset(setting).train.head(setting.pick(count, 40))


def plain_mlp(setting: Setting) -> nn.Module:
    """784-200-200-10 with tanh, untrained; narrower in a trial."""
    return mlp(hidden=setting.pick((200, 200), (16,))).to(setting.device)


def descend(model: nn.Module, data: Split, lr: float, steps: int, every: int) -> list[nn.Module]:
    """Full-batch gradient descent; copies of the model at step `every`, 2 `every`, ... `steps`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    copies = []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        F.cross_entropy(model(data.inputs), data.target).backward()
        optimizer.step()
        if step % every == 0:
            optimizer.zero_grad()
            copies.append(copy.deepcopy(model))
    return copies


def descended(setting: Setting, data: Split) -> nn.Module:
    """The MLP after 300 steps at rate 0.1."""
    steps = setting.pick(300, 4)
    return descend(plain_mlp(setting), data, 0.1, steps, steps)[-1]


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
