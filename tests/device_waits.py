"""How often the host waits for the device, counted on a pretend one.

A wait is `.item()`, `bool()`, a copy to or from the device, or a result whose size depends on
numbers. Each stalls a GPU for as long as a small kernel takes, whatever the model's size.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from device_cases import world
from pretend_device import pretend_device

import calibcourse as cc

BATCHES = 4  # per epoch: the world's 40 training samples, 10 at a time


@dataclass(frozen=True)
class Work:
    """Something done again and again.

    Attributes:
        unit: what is repeated.
        work: (world, repetitions) -> None.
        fewer, more: repetitions whose difference gives one.
        most: the bound on its waits.
    """

    unit: str
    work: Callable
    fewer: int
    more: int
    most: float

    def waits(self) -> float:
        """The host's waits for one repetition."""
        counts = []
        for repetitions in (self.fewer, self.more):
            with pretend_device() as device, warnings.catch_warnings():
                warnings.simplefilter("ignore", cc.curvature.ConvergenceWarning)
                there = world("cuda")
                self.work(there, 1)  # makes what is kept for all later calls
                device.clear()
                self.work(there, repetitions)
                counts.append(sum(device.waits.values()))
        return (counts[1] - counts[0]) / (self.more - self.fewer)


def step(unit: str, optimizer: str = "sgd", loss: object = None) -> Work:
    """A step of training: the loss is read, and in each epoch the order of its samples sent."""

    def work(w, steps: int) -> None:
        options = {"lr": 0.01, "batch_size": 10, "probe_steps": [0, steps], "progress": False}
        cc.fit(copy.deepcopy(w.cnn), w.data, loss, optimizer, steps=steps, **options)

    return Work(f"training step, {unit}", work, BATCHES, 3 * BATCHES, 1 + 1 / BATCHES)


def repeated(unit: str, once: Callable, most: float) -> Work:
    """A call that is made again and again."""
    return Work(unit, lambda w, n: [once(w) for _ in range(n)], 1, 2, most)


def products(w, repetitions: int) -> None:
    operator = cc.GaussNewton(w.model, w.inputs)
    for _ in range(repetitions):
        operator.matvec(torch.ones(operator.shape[0], device="cuda"))


def iterations(w, repetitions: int) -> None:
    cc.top_eigenpair(cc.GaussNewton(w.model, w.inputs), tol=1e-12, max_matvecs=repetitions)


# The bounds are what was counted: they fail when a wait is added.
WORK = (
    step("SGD"),
    step("AdamW", "adamw"),
    step("Muon", "muon"),
    step("SAM", "sam"),
    step("focal loss", loss=cc.FocalLoss()),
    step("mean squared error", loss=cc.MeanSquaredError()),
    step("CalMO", loss=cc.CalMO()),
    step("SAM and CalMO in l2", "sam", cc.CalMO(norm="l2")),
    Work("Gauss-Newton product", products, 2, 6, 1),
    Work("Lanczos iteration", iterations, 4, 8, 2),
    repeated("LogitProbe, three splits", lambda w: cc.LogitProbe()(w.model, w.data), 27),
    repeated("SharpnessProbe", lambda w: cc.SharpnessProbe()(w.model, w.data), 85),
    repeated("LadderProbe", lambda w: cc.LadderProbe("test")(w.model, w.data), 167),
)
