"""Wrong labels on purpose, exactly as many as asked for."""

import torch
from torch import Tensor

from .._checks import check_choice, check_integer, check_real, check_seed, check_target

NOISE_KINDS = ("symmetric", "one_sided")


def noisy_labels(
    target: Tensor, rate: float, n_classes: int, kind: str = "symmetric", seed: int = 0
) -> Tensor:
    """Labels of which a share is wrong.

    Exactly round(rate × N) labels are changed, each to another class: symmetric noise draws it
    from the K - 1 others with equal probability, one-sided noise takes the next, k -> k + 1 mod K,
    as if a labeller mistook one class for one other, always in the same direction.

    For one seed, the images that are wrong at a smaller rate are wrong at a larger one too, with
    the same labels.

    Args:
        target: (N,) int64 labels in 0..K-1.
        rate: the share that is changed, in [0, 1].
        n_classes: K, at least 2.
        kind: "symmetric" or "one_sided".
        seed: decides which labels, and to what; the same on every device.

    Returns:
        (N,) int64 on the device of the labels, which are not changed.

    Raises:
        ValueError, TypeError: labels that are empty, not int64, or no class; a rate outside [0, 1];
            an unknown kind; a negative seed.

    Example:
        >>> noisy_labels(torch.tensor([0, 0, 2, 2]), 0.5, 3, "one_sided")
        tensor([1, 1, 2, 2])
    """
    n_classes = check_integer(n_classes, "n_classes", 2)
    if isinstance(target, Tensor) and target.numel() == 0:
        raise ValueError("target must hold at least one label, got none")
    check_target(target, len(target) if isinstance(target, Tensor) else 0, n_classes)
    rate = check_real(rate, "rate", 0.0, 1.0)
    check_choice(kind, "kind", NOISE_KINDS)
    seed = check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(target), generator=generator)
    away = torch.randint(1, n_classes, target.shape, generator=generator)
    if kind == "one_sided":
        away = torch.ones_like(away)
    wrong = order[: round(rate * len(target))].to(target.device)
    labels = target.clone()
    labels[wrong] = (target[wrong] + away.to(target.device)[wrong]) % n_classes
    return labels
