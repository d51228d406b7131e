"""Batches that somebody else yields: a DataLoader, a list, whatever can be gone through again."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def check_source(source: object, name: str, otherwise: str) -> None:
    """Require what yields batches anew whenever it is gone through; `otherwise` is allowed too."""
    if isinstance(source, Iterator) or not isinstance(source, Iterable):
        raise TypeError(
            f"{name} must be {otherwise}, or yield (inputs, target) batches in every pass anew, as "
            f"a DataLoader or a list of batches does; got {type(source).__name__}"
        )


def seeded(source: Iterable[Any], seed: int) -> Iterator[Any]:
    """One pass through a source, whose chance (torch's, on the CPU) comes from a seed of its own.

    Outside, the random state is the same after every batch as before it.
    """
    inside = torch.Generator().manual_seed(seed).get_state()
    iterator = None
    while True:
        outside = torch.get_rng_state()
        torch.set_rng_state(inside)
        try:
            iterator = iter(source) if iterator is None else iterator
            batch = next(iterator)
        except StopIteration:
            return
        finally:
            inside = torch.get_rng_state()
            torch.set_rng_state(outside)
        yield batch


def pair(batch: Any, name: str, otherwise: str) -> tuple[Tensor, Tensor]:
    """Inputs and target of a batch, which must be a pair of tensors; names as above."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        inputs, target = batch
        if isinstance(inputs, Tensor) and isinstance(target, Tensor):
            return inputs, target
    raise TypeError(
        f"{name} must be {otherwise}, or yield pairs (inputs, target) of tensors, but yields "
        f"{type(batch).__name__}; let a collate_fn make pairs"
    )
