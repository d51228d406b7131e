"""What the tests of the exercise framework share: a tiny answer, and bad ones."""

import time
from contextlib import suppress

import torch


def my_scores(values, scale):
    return values.sum() * scale, values * scale


VALUES = torch.tensor([1.0, 2.0, 4.0])
OTHER = torch.tensor([0.5, 0.25])


def endless(values, scale):
    while True:
        with suppress(Exception):
            values = values * 1


def asleep(values, scale):
    time.sleep(3600)


def raises(error):
    def answer(values, scale):
        print("on the way")
        raise error

    return answer
