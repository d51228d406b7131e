"""Every inequality of THEORY.md: it holds on hostile logits, it is tight, and it is computed right.

Three kinds of test. Property: logits of 2 to 1,000 classes, scales 1e-3 to 300, ties, margins of
±200, float32 and float64. Reference: 60-digit arithmetic and dense float64 matrices. Tightness: for
each constant a generated input on which a smaller constant would be false.

Bounds are float64 logarithms. A comparison "a <= b" allows 8 units in the last place of max(1, |b|)
(`ULPS`): each side is a handful of correctly rounded operations away from the logits.
"""

import math

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

from calibcourse.bounds import (
    ece_bounds,
)
from calibcourse.margins import log_margin_moment, true_margin
from calibcourse.models import mlp

ULPS = 8 * torch.finfo(torch.float64).eps


def below(low, high):
    """Whether low <= high everywhere, up to 8 units in the last place; both are logarithms."""
    low, high = (torch.as_tensor(side, dtype=torch.float64) for side in (low, high))
    return bool((low <= high + ULPS * high.abs().clamp(min=1)).all())


STYLES = ("gaussian", "ties", "uniform", "one hot", "plus 200", "minus 200", "two groups")


def make_logits(n, k, style, scale, seed, dtype=torch.float64):
    """Logits and labels of a given style; labels are right, runner-up or random in turn."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, k, generator=generator, dtype=torch.float64)
    if style == "ties":
        z = z.round()
    elif style == "uniform":
        z = torch.zeros(n, k, dtype=torch.float64)
    elif style == "one hot":
        z = F.one_hot(torch.randint(k, (n,), generator=generator), k).double()
    elif style == "two groups":
        z = (z > 0).double()
    z = scale * z
    order = z.argsort(dim=1, descending=True, stable=True)
    chance = torch.randint(k, (n,), generator=generator)
    target = torch.stack([order[:, 0], order[:, 1], chance], 1)[
        torch.arange(n), torch.arange(n) % 3
    ]
    if style in ("plus 200", "minus 200"):
        sign = 1 if style == "plus 200" else -1
        z.scatter_(1, target[:, None], sign * 200.0)
    return z.to(dtype), target


@st.composite
def cases(draw, max_samples=7):
    return make_logits(
        n=draw(st.integers(1, max_samples)),
        k=draw(st.one_of(st.integers(2, 12), st.sampled_from([100, 1000]))),
        style=draw(st.sampled_from(STYLES)),
        scale=10 ** draw(st.floats(-3, math.log10(300))),
        seed=draw(st.integers(0, 2**20)),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
    )


def rivals(z, missing):
    return math.log(max(z.shape[1] - 1 - missing, 1))


def interpolating(z):
    """The labels that make every prediction right, and the ECE bounds; None on ties."""
    y = z.argmax(1)
    return (
        (ece_bounds(z, y), log_margin_moment(true_margin(z, y)).item())
        if (true_margin(z, y).min() > 0)
        else None
    )


class Flatten8(nn.Module):
    """A convolution, BatchNorm with used statistics, and a linear head."""

    def __init__(self, k, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.head = nn.Linear(48, k)
        self.body(torch.rand(32, 1, 4, 4))  # in train mode: moves the running statistics

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


def network(kind, k, steps, dtype, seed=0):
    """A small network in eval mode, trained for some steps to memorise, with data and labels."""
    if kind == "mlp":
        model = mlp((1, 4, 4), hidden=(9, 6), n_classes=k, seed=seed)
    elif kind == "linear":
        model = mlp((1, 4, 4), hidden=(), n_classes=k, seed=seed)
    else:
        model = Flatten8(k, seed)
    model = model.to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(24, 1, 4, 4, generator=generator).to(dtype)
    target = torch.randint(k, (24,), generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), target).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, inputs, target


RUNGS = ["l4", "l3", "l2", "l1", "u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7"]
