"""What the tests of training share."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from calibcourse.history import History
from calibcourse.losses import CrossEntropy
from calibcourse.models import mlp
from calibcourse.training import fit

SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class Split:
    inputs: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Data:
    name: str
    train: Split
    test: Split

    def to(self, device):
        return self


def make_split(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, *SHAPE, generator=generator)
    return Split(inputs, torch.randint(0, 10, (count,), generator=generator))


DATA = Data("toy", make_split(50, 0), make_split(30, 1))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def norm_probe(model, data):
    return {"norm": float(weights(model).double().norm())}


def small_mlp(seed: int = 0) -> nn.Module:
    return mlp(SHAPE, (12,), seed=seed)


def noisy_model() -> nn.Module:
    """BatchNorm buffers and dropout: the parts of a state that are easily forgotten."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(12, 10),
        )


def quiet_fit(model, data=DATA, **changes) -> History:
    options = dict(lr=0.1, steps=12, batch_size=16, probes=[norm_probe], probe_steps=5)
    return fit(model, data, **{**options, **changes}, progress=False)


class Killed(Exception):
    pass


class Countdown:
    """A probe with a state of its own, which kills the run when its patience is over."""

    def __init__(self, patience: int = 10**9):
        self.patience, self.total = patience, 0.0

    def __call__(self, model, data):
        self.patience -= 1
        if self.patience < 0:
            raise Killed
        self.total += float(weights(model).double().sum())
        return {"total": self.total}

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


def explode_at(step: int):
    """A loss that is NaN from the given update (1-based) on."""
    calls = [0]

    def loss(model, inputs, target):
        calls[0] += 1
        terms = CrossEntropy()(model, inputs, target)
        return replace(terms, total=terms.total * math.nan) if calls[0] >= step else terms

    return loss
