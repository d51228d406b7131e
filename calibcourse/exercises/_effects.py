"""What a call does beside returning: arguments, gradients, a model's mode, global settings."""

import contextlib
import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Each effect with the misconception behind it. The first entry is any other change of values.
EFFECTS = {
    "values": (
        "Your function changes its argument in place. Make a new tensor: `x = x - 1` for "
        "`x -= 1`, `x.exp()` for `x.exp_()`."
    ),
    "gradients": (
        "Your function leaves gradients behind in the parameters (`p.grad`): `backward()` adds "
        "to every `p.grad` on its way. The caller's own `backward()` comes on top, and the step "
        "is wrong. `torch.autograd.grad(value, x)` gives a gradient and touches nothing else."
    ),
    "erased gradients": (
        "Your function erases the gradients in the parameters (`p.grad`), which belong to the "
        "caller: whoever gathers gradients over several batches loses them. "
        "`torch.autograd.grad(value, x)` needs no `zero_grad()`."
    ),
    "mode": (
        "Your function leaves the model in another mode: after `eval()` or `train()` inside, "
        "dropout and batch normalisation work otherwise in the caller's next step. The mode is "
        "the caller's."
    ),
    "dtype": (
        "Your function leaves the model in another dtype: `model.double()` changes the model "
        "itself, and the caller's next batch no longer fits it. Convert a copy "
        "(`copy.deepcopy(model)`)."
    ),
    "frozen": (
        "Your function leaves parameters frozen or unfrozen (`requires_grad`): the caller's "
        "training would stand still, or move what should rest."
    ),
    "settings": (
        "Your function leaves a setting of PyTorch changed (whether gradients are recorded, or "
        "the default dtype): everything the notebook runs afterwards would feel it. "
        "`with torch.no_grad():` ends by itself."
    ),
}


def copied(value: Any) -> Any:
    """A copy for one call: tensors, arrays, models with their gradients, and what holds them.

    Example:
        >>> original = [torch.zeros(2)]
        >>> copied(original)[0].add_(1), original
        (tensor([1., 1.]), [tensor([0., 0.])])
    """
    if isinstance(value, Tensor):  # deepcopy refuses tensors that are not leaves
        return value.detach().clone().requires_grad_(value.requires_grad)
    if type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    twin = copy.deepcopy(value) if isinstance(value, nn.Module | dict | np.ndarray) else value
    if isinstance(value, nn.Module):  # a deep copy of a parameter leaves its gradient out
        for mine, theirs in zip(twin.parameters(), value.parameters(), strict=True):
            mine.grad = None if theirs.grad is None else theirs.grad.clone()
    return twin


def effect(before: Any, after: Any) -> str | None:
    """Which of `EFFECTS` tells an argument after a call from the one before, or None.

    Example:
        >>> effect(torch.zeros(2), torch.zeros(2)), effect([1.0], [1.0, 2.0])
        (None, 'values')
    """
    if isinstance(before, nn.Module):
        return _effect_on_model(before, after)
    if isinstance(before, Tensor):
        return None if _same(before, after) else "values"
    if isinstance(before, np.ndarray):
        nan = before.dtype.kind in "fc"
        return None if np.array_equal(before, after, equal_nan=nan) else "values"
    if isinstance(before, dict):
        if before.keys() != after.keys():
            return "values"
        return _first(effect(before[key], after[key]) for key in before)
    if isinstance(before, list | tuple):
        if len(before) != len(after):
            return "values"
        return _first(map(effect, before, after))
    return None


@contextlib.contextmanager
def undone(seed: int) -> Iterator[None]:
    """A block that begins with seeded global generators; they and PyTorch's settings come back."""
    python_state, numpy_state, settings = random.getstate(), np.random.get_state(), global_state()
    with torch.random.fork_rng(devices=[]), np.errstate():
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would reach CUDA too
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.set_grad_enabled(settings[0])
            torch.set_default_dtype(settings[1])


def global_state() -> tuple[bool, torch.dtype]:
    """PyTorch's settings that a call could leave changed."""
    return torch.is_grad_enabled(), torch.get_default_dtype()


def _effect_on_model(before: nn.Module, after: nn.Module) -> str | None:
    state, then = before.state_dict(), after.state_dict()
    if state.keys() != then.keys():
        return "values"
    if any(then[name].dtype != tensor.dtype for name, tensor in state.items()):
        return "dtype"
    if not all(_same(tensor, then[name]) for name, tensor in state.items()):
        return "values"
    if [m.training for m in before.modules()] != [m.training for m in after.modules()]:
        return "mode"
    pairs = list(zip(before.parameters(), after.parameters(), strict=True))
    if any(one.requires_grad != other.requires_grad for one, other in pairs):
        return "frozen"
    return _first(_effect_on_gradient(one.grad, other.grad) for one, other in pairs)


def _effect_on_gradient(before: Tensor | None, after: Tensor | None) -> str | None:
    if before is None:
        return None if after is None else "gradients"
    if after is None or (before.any() and not after.any()):
        return "erased gradients"
    return None if _same(before, after) else "gradients"


def _same(before: Tensor, after: Tensor) -> bool:
    """Whether two tensors hold the same, wherever they lie by now; NaN is itself."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    after = after.to(before.device)
    both = before.isnan() & after.isnan()
    return torch.equal(before.masked_fill(both, 0), after.masked_fill(both, 0))


def _first(effects: Any) -> str | None:
    return next((found for found in effects if found), None)
