"""What devices differ in: which is there, and whether it has double precision.

Apple's MPS has no float64. What has to be precise is computed on the CPU then, and stays there.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments, Result, Value = ParamSpec("Arguments"), TypeVar("Result"), TypeVar("Value")


def default_device(*, float64: bool = True) -> torch.device:
    """The device worth using here: CUDA where there is one, else the CPU.

    Args:
        float64: whether it must have double precision, as the lessons need. Without, Apple's MPS
            counts too: models are trained, attacked and differentiated there in float32, and what
            is measured in float64 (metrics, bounds) is measured, and comes back, on the CPU.

    Example:
        >>> default_device().type in ("cuda", "cpu")
        True
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu" if float64 or not torch.backends.mps.is_available() else "mps")


def has_float64(device: torch.device) -> bool:
    """Whether tensors on a device may be float64."""
    return device.type != "mps"


def precise(values: Tensor) -> Tensor:
    """The values in float64: where they are, or on the CPU if there is no float64 there."""
    return (values if has_float64(values.device) else values.cpu()).double()


def where_float64_is(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a measurement in float64: tensors from where there is none go to the CPU first."""

    @wraps(function)
    def measured(*args: Arguments.args, **options: Arguments.kwargs) -> Result:
        moved = map(measurable, args)
        return function(*moved, **{name: measurable(v) for name, v in options.items()})

    return measured


def measurable(value: Value) -> Value:
    """The value, but a tensor of a device without float64 on the CPU."""
    away = isinstance(value, Tensor) and not has_float64(value.device)
    return value.cpu() if away else value
