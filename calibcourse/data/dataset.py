"""What a data set is: images with labels, in three parts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import check_inputs, check_integer, check_target


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images with their labels: one part of a data set.

    Args:
        inputs: images (N, C, H, W), float32 (any floating dtype is kept), pixels in [0, 1].
        target: labels (N,), int64, on the device of the images.

    Raises:
        TypeError: images that are not floating, labels that are not int64.
        ValueError: no image, a wrong shape, pixels outside [0, 1], labels that do not match.

    Example:
        >>> Split(torch.zeros(3, 1, 28, 28), torch.tensor([0, 1, 2]))
        Split(3 images of 1 × 28 × 28)
    """

    inputs: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        check_inputs(self.inputs)
        if self.inputs.ndim != 4:
            raise ValueError(f"inputs must have shape (N, C, H, W), got {tuple(self.inputs.shape)}")
        low, high = (float(v) for v in torch.aminmax(self.inputs))
        if low < 0 or high > 1:
            raise ValueError(
                f"inputs must be pixels in [0, 1], got values from {low:.4g} to {high:.4g}; "
                "normalising is the model's first layer"
            )
        # `Dataset` knows the number of classes; here a label only has to be non-negative.
        check_target(self.target, len(self), torch.iinfo(torch.int64).max)
        if self.target.device != self.inputs.device:
            raise ValueError(
                f"target must be on the device of inputs ({self.inputs.device}), "
                f"got {self.target.device}"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        return f"Split({_count(self)} images of {_size(self)})"

    def head(self, n: int) -> "Split":
        """The first n images and labels, sharing memory with this split.

        Args:
            n: how many, from 1 to the length of the split.

        Returns:
            A split of n images.

        Raises:
            TypeError, ValueError: n is not an integer in 1..N.

        Example:
            >>> Split(torch.zeros(3, 1, 28, 28), torch.tensor([0, 1, 2])).head(2)
            Split(2 images of 1 × 28 × 28)
        """
        n = check_integer(n, "n", 1)
        if n > len(self):
            raise ValueError(f"n must be at most the {len(self)} images of this split, got {n}")
        return Split(self.inputs[:n], self.target[:n])

    def to(self, device: torch.device | str) -> "Split":
        """The same split on another device (shared, not copied, where it is there already)."""
        inputs, target = self.inputs.to(device), self.target.to(device)
        there = inputs is self.inputs and target is self.target
        return self if there else Split(inputs, target)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training, a validation and a test part, and the names of the classes.

    Args:
        name: what `load_dataset` calls it.
        classes: K names; label k means `classes[k]`.
        train: for fitting a model.
        validation: for choosing: a step, a temperature, a hyperparameter.
        test: for reporting, once.

    Raises:
        TypeError: a part that is not a Split.
        ValueError: fewer than two classes, a label that is no class, parts with unlike images.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"classes must name at least two classes, got {self.classes}")
        for part in _PARTS:
            split = getattr(self, part)
            if not isinstance(split, Split):
                raise TypeError(f"{part} must be a Split, got {type(split).__name__}")
            check_target(split.target, len(split), len(self.classes), f"{part}.target")
            if _size(split) != _size(self.train):
                raise ValueError(
                    f"{part} must hold images of {_size(self.train)} like train, got {_size(split)}"
                )

    def __repr__(self) -> str:
        parts = ", ".join(f"{part} {_count(getattr(self, part))}" for part in _PARTS)
        return (
            f"Dataset({self.name}: {len(self.classes)} classes, "
            f"images of {_size(self.train)}; {parts})"
        )

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set on another device (shared, not copied, where it is there already)."""
        parts = {part: getattr(self, part).to(device) for part in _PARTS}
        there = all(getattr(self, part) is split for part, split in parts.items())
        return self if there else Dataset(self.name, self.classes, **parts)


_PARTS = ("train", "validation", "test")


def _count(split: Split) -> str:
    return f"{len(split):,}"


def _size(split: Split) -> str:
    return " × ".join(str(size) for size in split.inputs.shape[1:])
