"""How often the host waits for the device, counted on a pretend one: upper bounds that hold.

A wait is `.item()`, `bool()`, a copy to or from the device, or a result whose size depends on
numbers. Each stalls a GPU for as long as a small kernel takes, whatever the model's size.
"""

import copy
from collections.abc import Callable

import pytest
from device_cases import world
from pretend_device import pretend_device

import calibcourse as cc

STEPS_PER_EPOCH = 4  # of the world's 40 training samples, 10 at a time


def waits(work: Callable, fewer: int, more: int) -> float:
    """Waits of one repetition, from the difference between more and fewer of them."""
    counts = []
    for repetitions in (fewer, more):
        with pretend_device() as device:
            there = world("cuda")
            device.clear()
            work(there, repetitions)
            counts.append(sum(device.waits.values()))
    return (counts[1] - counts[0]) / (more - fewer)


def training(optimizer: str = "sgd", loss: object = None) -> Callable:
    def work(w, steps: int) -> None:
        options = {"lr": 0.01, "batch_size": 10, "probe_steps": [0, steps], "progress": False}
        cc.fit(copy.deepcopy(w.cnn), w.data, loss, optimizer, steps=steps, **options)

    return work


STEPS = {
    "sgd": training(),
    "adamw": training("adamw"),
    "muon": training("muon"),
    "sam": training("sam"),
    "focal loss": training(loss=cc.FocalLoss()),
    "mean squared error": training(loss=cc.MeanSquaredError()),
    "CalMO": training(loss=cc.CalMO()),
    "CalMO, l2": training("sam", cc.CalMO(norm="l2")),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_training_step_waits_once(name):
    # To read the loss; and the order of an epoch's samples goes to the device.
    assert waits(STEPS[name], STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH) <= 1 + 1 / STEPS_PER_EPOCH
