"""Logits read block by block, in what fits the processor's cache: one small array at a time.

No N × K array of probabilities is ever written.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Logits per block: they and their exponentials stay in a processor's cache. Few classes are laid
# out class first; from MANY_CLASSES on a sample is a vector long enough, and transposing would cost
# more than it saves. A GPU wants fewer, larger launches.
BLOCK_SIZE = {"cpu": 1 << 19}
BLOCK_SIZE_ACCELERATOR = 1 << 25
MANY_CLASSES = 32


def blocks(logits: Tensor, dtype: torch.dtype | None = None) -> Iterator[tuple[Tensor, slice]]:
    """Yield z - z_max block by block, class first: (K, B), with the rows it stands for.

    Class first in memory too where classes are few, because then every reduction over classes runs
    down whole vectors of samples. The next block overwrites this one.
    Half-precision logits are widened to float32, in which their differences are exact.
    """
    dtype = dtype or torch.promote_types(logits.dtype, torch.float32)
    n_samples, n_classes = logits.shape
    n_rows = rows_of_a_block(logits)
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


def rows_of_a_block(logits: Tensor, n_classes: int | None = None) -> int:
    """Samples per block of such logits, or of so many classes."""
    size = BLOCK_SIZE.get(logits.device.type, BLOCK_SIZE_ACCELERATOR)
    return max(1, size // (n_classes or logits.shape[1]))


def groups(logits: Tensor) -> Iterator[slice]:
    """Yield the rows of some blocks at a time, as many as a block of four classes has.

    What is a few numbers per sample is worth computing for many blocks at once.
    """
    n_samples, n_rows = len(logits), rows_of_a_block(logits)
    size = n_rows * max(1, rows_of_a_block(logits, 4) // n_rows)
    for start in range(0, n_samples, size):
        yield slice(start, min(start + size, n_samples))


def rest_and_ties(shifted: Tensor) -> tuple[Tensor, Tensor]:
    """s = Σ_{j≠ŷ} e^{z_j - z_ŷ} of each sample, so that c = 1/(1+s); and its whole part. Float64.

    The top class contributes e^0 = 1 exactly and every other class at most that: its part is the
    whole number, taken away before anything is added to it. What remains of whole numbers counts
    the classes that tie with the top, or differ from it by less than exp can tell. It is what the
    sum loses with them, rounded: float32 sums of a million terms err by less than a half.

    `shifted` is overwritten: new memory for every block would cost half of the time.
    """
    weights = shifted.exp_()
    total = weights.sum(0)
    rest = sum_over_classes(weights.frac_())
    n_tied = total.sub_(rest).round_().sub_(1).double()
    return n_tied + rest, n_tied


def sum_over_classes(terms: Tensor) -> Tensor:
    """Column sums of (K, B), added in an order that K alone decides; the terms are overwritten.

    Otherwise a confidence could differ in its last bit between one split into batches and another,
    and with it the bin. A CPU sums each sample's many classes, neighbours in memory, by themselves,
    except where there is one sample, which it may split between threads. Everywhere else the order
    of torch.sum depends on a column's place in the block, so rows are added pairwise, halving them.
    """
    n_classes, n_samples = terms.shape
    if terms.is_cpu and n_classes >= MANY_CLASSES:
        return (terms if n_samples > 1 else terms.expand(-1, 2)).sum(0)[:n_samples]
    while n_classes > 1:
        n_left = (n_classes + 1) // 2
        terms[: n_classes - n_left].add_(terms[n_left:n_classes])
        n_classes = n_left
    return terms[0]


def at_label(values: Tensor, target: Tensor) -> Tensor:
    """values[y_i, i] of a (K, B) block."""
    return values.gather(0, target[None])[0]
