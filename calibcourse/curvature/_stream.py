"""Samples that do not fit into memory: one pass through a source of batches for every product."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .._devices import precise
from .._sources import pair, seeded

SAME = 1e-10  # relative: the sum of the same numbers in another order


class Stream:
    """Passes through a source, which must show the same samples in each.

    Its chance begins every pass with the same seed, so that shuffled and even augmented samples
    come again; what still differs would be another matrix at every product, and is refused.

    Args:
        source: yields pairs (inputs, target) of tensors in every pass anew.
        device: to which they are moved.
    """

    def __init__(self, source: Iterable[Any], device: torch.device):
        self._source, self._device = source, device
        self._seen: tuple[int, float] | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count, total, size = 0, 0.0, 0.0
        for batch in seeded(self._source, 0):
            inputs, target = pair(batch, "inputs", "a torch.Tensor")
            inputs, target = inputs.to(self._device), target.to(self._device)
            values = precise(inputs)
            count, total = count + len(inputs), total + float(values.sum())
            size += float(values.abs().sum())
            yield inputs, target
        if not count:
            raise ValueError("inputs must yield at least one (inputs, target) batch, got none")
        if self._seen is None:
            self._seen = count, total
        if self._seen[0] != count or abs(self._seen[1] - total) > SAME * size:
            raise ValueError(
                "inputs must yield the same samples in every pass, and yields others: let their "
                "choice and augmentation draw from torch's global random state alone, which is "
                "seeded here (a DataLoader without generator=), or switch them off"
            )
