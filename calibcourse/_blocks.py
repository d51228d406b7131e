"""Logits read block by block, in what fits the processor's cache: one small array at a time.

No N × K array of probabilities is ever written.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Logits per block: three float32 working arrays of a block stay in a processor's cache. Few classes
# are laid out class first, and the vectors of samples are too short for torch to split between
# threads, which would cost more time than it saves; from MANY_CLASSES on a sample is a vector long
# enough, and transposing would cost more than it saves. A GPU wants fewer, larger launches.
BLOCK_SIZE = {"cpu": 1 << 18}
BLOCK_SIZE_ACCELERATOR = 1 << 25
MANY_CLASSES = 48


def blocks(logits: Tensor, dtype: torch.dtype | None = None) -> Iterator[tuple[Tensor, slice]]:
    """Yield z - z_max block by block, class first: (K, B), with the rows it stands for.

    Class first in memory too where classes are few, because then every reduction over classes runs
    down whole vectors of samples. The next block overwrites this one.
    Half-precision logits are widened to float32, in which their differences are exact.
    """
    dtype = dtype or torch.promote_types(logits.dtype, torch.float32)
    n_samples, n_classes = logits.shape
    n_rows = max(1, BLOCK_SIZE.get(logits.device.type, BLOCK_SIZE_ACCELERATOR) // n_classes)
    buffer = None
    for start in range(0, n_samples, n_rows):
        rows = slice(start, min(start + n_rows, n_samples))
        block = logits.detach()[rows].to(dtype)
        if buffer is None:
            buffer = block.new_empty(block.numel())
        size = len(block)
        if n_classes >= MANY_CLASSES:
            shifted = buffer[: block.numel()].view(size, n_classes)
            yield torch.sub(block, block.amax(1, keepdim=True), out=shifted).t(), rows
        else:
            shifted = buffer[: block.numel()].view(n_classes, size)
            # Transposes by arithmetic: twice as fast as copy_, and exact.
            torch.sub(block.t(), 0, out=shifted)
            shifted -= shifted.amax(0)
            yield shifted, rows


def rest_and_ties(
    shifted: Tensor, space: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """s = Σ_{j≠ŷ} e^{z_j - z_ŷ} of each sample, float64, so that c = 1/(1+s); and its whole part.

    The top class contributes e^0 = 1 exactly and every other class at most that: its part is the
    whole number, taken away before anything is added to it. What remains of whole numbers counts
    the classes that tie with the top, or differ from it by less than exp can tell.

    `space`, of `space_like` for a block of this shape, is overwritten: new memory for every block
    would cost half of the time.
    """
    weights, whole = space or space_like(shifted)
    torch.exp(shifted, out=weights)
    n_tied = torch.floor(weights, out=whole).sum(0).sub_(1)
    weights.frac_()
    return sum_over_classes(weights).double().add_(n_tied), n_tied


def space_like(shifted: Tensor) -> tuple[Tensor, Tensor]:
    """Room for what `rest_and_ties` computes on a block."""
    return torch.empty_like(shifted), torch.empty_like(shifted)


def sum_over_classes(terms: Tensor) -> Tensor:
    """Column sums of (K, B), halving the rows in place; the terms are overwritten.

    torch.sum adds in an order that depends on a column's place in the block, which would let a
    confidence differ in its last bit between one split into batches and another, and with it the
    bin. Adding rows pairwise treats every column alike, and rounds less.
    """
    while len(terms) > 1:
        half = (len(terms) + 1) // 2
        terms[: len(terms) - half] += terms[half:]
        terms = terms[:half]
    return terms[0]


def at_label(values: Tensor, target: Tensor) -> Tensor:
    """values[y_i, i] of a (K, B) block."""
    return values.gather(0, target[None])[0]
