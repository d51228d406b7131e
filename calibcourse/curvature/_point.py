"""The point that an operator describes: a network with its buffers and modes, and the samples.

A kept graph reads its tensors again at every product, so a change behind its back mixes two points.
Versions tell of the changes that torch counts; writing through `.data` is not counted, and for that
a few entries of every tensor are compared.
"""

from collections.abc import Sequence
from copy import copy
from typing import Self

import torch
from torch import Tensor, nn

from .._checks import by_kind
from .._conduct import version

SAMPLES = "inputs or target"
ENTRIES = 16  # of each tensor to compare: an update that misses them all is no step of training


class Point:
    """What must not have changed since; `changed()` says what has.

    Args:
        model: its parameters, buffers and modes are watched.
        samples: inputs and targets, watched by torch's count of changes alone.
    """

    def __init__(self, model: nn.Module, samples: Sequence[Tensor | None]):
        self._model = model
        self._watched = [*model.parameters(), *model.buffers()]
        self._samples = [sample for sample in samples if sample is not None]
        self._views = [view for tensor in self._watched for view in _entries(tensor)]
        self._before = self._state()
        self._values = _by_dtype(self._views)

    def at(self, samples: Sequence[Tensor | None]) -> Self:
        """The same point of the model, and other samples."""
        other = copy(self)
        other._samples = [sample for sample in samples if sample is not None]
        other._before = self._before | {SAMPLES: [version(sample) for sample in other._samples]}
        return other

    def changed(self) -> str:
        """The words for what has changed, empty where nothing has."""
        for (what, before), now in zip(self._before.items(), self._state().values(), strict=True):
            if before != now:
                return what
        same = all(map(torch.equal, _by_dtype(self._views), self._values))
        return "" if same else "parameters or buffers"

    def _state(self) -> dict[str, list[object]]:
        parameters, buffers = self._model.parameters(), self._model.buffers()
        return {
            "parameters": [(version(tensor), tensor.data_ptr()) for tensor in parameters],
            "buffers": [(version(tensor), tensor.data_ptr()) for tensor in buffers],
            "train or eval mode": [module.training for module in self._model.modules()],
            SAMPLES: [version(sample) for sample in self._samples],
        }


def _by_dtype(views: list[Tensor]) -> list[Tensor]:
    """Copies of the views, in one tensor per dtype and device: one wait each to compare them."""
    return [torch.cat(alike) for alike in by_kind(views)]


def _entries(tensor: Tensor) -> list[Tensor]:
    """A view of a few entries that lie evenly in memory; none where they are not in one piece."""
    dense = tensor.is_contiguous() or (
        tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    if not dense or not tensor.numel():
        return []
    step = max(1, tensor.numel() // ENTRIES)
    return [tensor.detach().as_strided((1 + (tensor.numel() - 1) // step,), (step,))]
