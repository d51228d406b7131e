"""Where a training run's batches come from: a split in memory, or what yields batches itself.

Both give the same batches to a run that is resumed as to one that was never interrupted.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._checks import check_integer
from ._conduct import call_with, random_state_restored
from ._sources import check_source, pair, seeded
from .checkpoint import fingerprint

WHAT = ("data", "a Dataset")  # for the errors: the argument, and what it may be instead


class SplitBatches:
    """The training samples as a function of the step alone.

    Every epoch is one permutation, drawn from (seed, epoch); its last batch may be smaller.

    Args:
        train: has `inputs` and `target`, on the device where the model trains.
        batch_size: samples per step; None, or at least their number, takes all.
        seed: of the permutations.
    """

    def __init__(self, train: Any, batch_size: int | None, seed: int):
        count = count_of(train)
        if batch_size is not None:
            batch_size = check_integer(batch_size, "batch_size", 1)
        self.train, self.seed = train, seed
        # Without a graph, which every batch would share, and a first backward pass take away.
        self.whole = self.inputs, self.target = train.inputs.detach(), train.target
        self.size = None if batch_size is None or batch_size >= count else batch_size
        self.per_epoch = 1 if self.size is None else math.ceil(count / self.size)
        self.smallest = count if self.size is None else count % self.size or self.size
        self.epoch, self.order = -1, None

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and target of update number `step` (0-based)."""
        if self.size is None:
            return self.whole
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.order_of(epoch).to(self.target.device)
        chosen = self.order[index * self.size : (index + 1) * self.size]
        return self.inputs[chosen], self.target[chosen]

    def order_of(self, epoch: int) -> Tensor:
        """The order of all samples in an epoch: (N,), int64, on the CPU."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.train.target))
        return torch.from_numpy(order)

    def sample(self) -> Tensor:
        """One sample's inputs, (1, ...)."""
        return self.train.inputs[:1]

    def described(self) -> dict[str, Any]:
        """What a history says of the training data."""
        return {"train_samples": len(self.train.target)}


def count_of(split: Any, of: str = "train") -> int:
    """How many samples a split of data has: tensors with one target for each."""
    for name in ("inputs", "target"):
        part = getattr(split, name)
        if not isinstance(part, Tensor):
            raise TypeError(
                f"data.{of}.{name} must be a torch.Tensor, got {type(part).__name__}: "
                "torch.as_tensor makes one"
            )
    if split.inputs.shape[:1] != split.target.shape[:1]:
        raise ValueError(
            f"data.{of} must have one target per sample, got inputs of shape "
            f"{tuple(split.inputs.shape)} and target of shape {tuple(split.target.shape)}"
        )
    return len(split.target)


class LoadedBatches:
    """The batches of a DataLoader, or of whatever can be gone through again and again.

    What is drawn for them (their order, what augments them) comes from a random state of its own,
    which starts every epoch from (seed, epoch). So it does not matter what the model draws, and a
    resumed run goes through its epoch once more, up to where it was, and finds the same batches.

    Args:
        source: an iterable of pairs (inputs, target) of tensors.
        seed: of the random state.
        device: to which every batch is moved.

    Raises:
        TypeError, ValueError: no iterable; one that can be gone through once only; when called: an
            epoch without a batch, batches that are no pairs of tensors, or other batches than
            before the interruption.
    """

    train, whole = None, ()

    def __init__(self, source: Iterable[Any], seed: int, device: torch.device | str):
        check_source(source, *WHAT)
        self.source, self.seed, self.device = source, seed, device
        self.size = getattr(source, "batch_size", None)
        self.epoch, self.taken = -1, 0
        self._iterator: Iterator[Any] | None = None
        self._last: tuple[Tensor, ...] = ()
        self._expected: dict[str, Any] | None = None

    @property
    def smallest(self) -> int | None:
        """Samples in the smallest batch of an epoch, where a DataLoader tells; else None."""
        try:
            count, drop_last = len(self.source.sampler), self.source.drop_last  # type: ignore
        except (AttributeError, TypeError, NotImplementedError):
            return None
        if self.size is None:  # a batch_sampler, or no batches at all
            return None
        return self.size if drop_last else count % self.size or self.size

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and target of the next update; its number is counted here."""
        if self._expected is not None:
            self._go_on(self._expected)
        inputs, target = self._last = self._next()
        return inputs.detach().to(self.device), target.to(self.device)

    def sample(self) -> Tensor:
        """One sample's inputs, (1, ...), of the first batch of an iterator that is thrown away."""
        with random_state_restored():
            return pair(next(iter(self.source)), *WHAT)[0][:1].to(self.device)

    def described(self) -> dict[str, Any]:
        """What a history says of the training data."""
        try:
            return {"train_samples": len(self.source.dataset)}  # type: ignore[attr-defined]
        except (AttributeError, TypeError):
            return {}

    def state_dict(self) -> dict[str, Any]:
        """How far the run has come, and what its last batch was."""
        last = fingerprint({str(place): part for place, part in enumerate(self._last)})
        return {"epoch": self.epoch, "taken": self.taken, "last": last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, as soon as a batch is asked for."""
        check_integer(state["epoch"], "epoch", -1)
        check_integer(state["taken"], "taken", 0)
        self._expected = dict(state)

    def _go_on(self, expected: dict[str, Any]) -> None:
        self.epoch, self._expected = max(expected["epoch"], 0) - 1, None
        while self.taken < expected["taken"] and self.epoch <= expected["epoch"]:
            self._last = self._next()
        if self.state_dict()["last"] != expected["last"]:
            raise ValueError(
                "data must yield the batches of the interrupted run again, and yields others: let "
                "their order and augmentation draw from torch's global random state alone, which "
                "fit seeds (a DataLoader without generator=), or start afresh with another "
                "checkpoint path"
            )

    def _next(self) -> tuple[Tensor, Tensor]:
        while True:
            if self._iterator is None:
                self.epoch, self.taken = self.epoch + 1, 0
                words = np.random.SeedSequence((self.seed, self.epoch)).generate_state(2)
                self._iterator = seeded(self.source, int(words[0]) << 31 | int(words[1]) >> 1)
            for batch in self._iterator:
                self.taken += 1
                return pair(batch, *WHAT)
            if not self.taken:
                raise ValueError(f"data must yield batches in epoch {self.epoch}, got none")
            self._iterator = None


def check_smallest_batch(model: nn.Module, batches: SplitBatches | LoadedBatches) -> None:
    """Require that no batch is a single sample where BatchNorm has to find a variance in it.

    Whether it has to, is tried: over the places of an image there is one.

    Args:
        model: in train mode.
        batches: of its training.

    Raises:
        ValueError: there is such a batch, with the remedy.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if batches.smallest != 1 or not norms:
        return
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.no_grad(), random_state_restored():
            call_with(buffers, model, batches.sample())
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise ValueError(
                "batch_size must leave no batch of one sample, which has no variance for "
                f"{type(norms[0]).__name__} in train mode; the last batch of an epoch is one here: "
                "take another batch_size, or drop_last=True in a DataLoader"
            ) from error
    except Exception:  # of the model's own: it comes again where it can be understood
        return
