"""Models as researchers bring them: small, float64, each of one kind that has gone wrong somewhere.

`RIGHT` are measured; `REFUSED` meet an error that names the remedy, matched by the words given.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

N_SAMPLES, N_CLASSES, LENGTH, WIDTH = 4, 3, 3, 4


class Written(nn.Module):
    """A forward function over named parts."""

    def __init__(self, forward: Callable, **parts: nn.Module | nn.Parameter | Tensor):
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self._run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self, x)


@dataclass(frozen=True)
class Kind:
    """How to build a model, what it takes, and which words refuse it, by group of functions."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    refusals: dict[str, str]


def images() -> Tensor:
    return torch.rand(N_SAMPLES, 2, 4, 4, dtype=torch.float64)


def rows() -> Tensor:
    return torch.rand(N_SAMPLES, LENGTH, WIDTH, dtype=torch.float64)


def flat() -> Tensor:
    return torch.rand(N_SAMPLES, WIDTH, dtype=torch.float64)


def tokens() -> Tensor:
    return torch.randint(7, (N_SAMPLES, LENGTH))


RIGHT: dict[str, Kind] = {}
REFUSED: dict[str, Kind] = {}
NO_GRADIENT = {"margins": "must have a floating dtype", "calmo": "must have a floating dtype"}


def right(inputs: Callable[[], Tensor], **refusals: str) -> Callable:
    """Register a builder as a kind that is measured, but for the groups refused."""
    return lambda build: RIGHT.update({build.__name__: Kind(build, inputs, refusals)})


def refused(inputs: Callable[[], Tensor], words: str, **refusals: str) -> Callable:
    """Register a builder as a kind that is refused with these words, by some groups with others."""
    every = {"curvature": words, "hessian": words, "margins": words} | refusals
    return lambda build: REFUSED.update({build.__name__: Kind(build, inputs, every)})


def head(width: int = WIDTH) -> nn.Linear:
    return nn.Linear(width, N_CLASSES)


def encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, 2, 5, dropout=0.1, batch_first=True)
