"""Two models, or two ways to train, on the same units: a difference, or a tie."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._checks import check_integer, check_real
from .._devices import where_float64_is
from .intervals import Interval, resampled, student_t


@dataclass(frozen=True)
class Comparison:
    """First less second on the same units; what `compare_models` and `paired_difference` return.

    Attributes:
        difference: first - second, with its interval.
        n_units: how many independent units the interval rests on.
        unit: what they are: "samples", "seeds", "runs".
    """

    difference: Interval
    n_units: int
    unit: str

    @property
    def verdict(self) -> str:
        """What the interval says: "tie" if it holds 0, "first is larger" or "second is larger"."""
        if self.difference.low > 0:
            return "first is larger"
        return "second is larger" if self.difference.high < 0 else "tie"

    def __repr__(self) -> str:
        low, value, high = self.difference.low, self.difference.estimate, self.difference.high
        return (
            f"Comparison({self.verdict}: {value:+.4f}, {100 * self.difference.level:g} % in "
            f"[{low:+.4f}, {high:+.4f}], {self.n_units:,} {self.unit})"
        )


@where_float64_is
def compare_models(
    statistic: Callable[[Tensor, Tensor], Tensor | float],
    first: Tensor,
    second: Tensor,
    target: Tensor,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Difference of a metric between two models on the same samples, with a paired interval.

    Both models are read on the same resamples (paired bootstrap), so what is hard for both cancels.
    The interval is d ± z s, s the standard deviation of the resampled differences, which needs no
    resample to be unbiased. It is about samples: it says nothing of another training run.

    Compare calibration by `debiased_ece`, or not at all: chance adds to every ECE, and to that of a
    less confident network more, so that the plain ECEs of two calibrated networks differ for good.

    Args:
        statistic: called as statistic(scores, target), returns one number.
        first, second: (N, ...), what the statistic reads of each model; mostly logits (N, K).
        target: (N,) labels, of both.
        level: coverage, strictly between 0 and 1.
        n_resamples: at least 2.
        seed: decides the resamples.

    Returns:
        A `Comparison` over N samples.

    Raises:
        ValueError: first, second and target differ in length; level outside (0, 1);
            n_resamples < 2.

    Example:
        >>> from calibcourse import accuracy
        >>> logits = torch.tensor([[1.0, 0.0]]).repeat(100, 1)
        >>> target = torch.tensor([0] * 80 + [1] * 20)
        >>> compare_models(accuracy, logits, -logits, target, n_resamples=200)
        Comparison(first is larger: +0.6000, 95 % in [+0.4450, +0.7550], 100 samples)
        >>> compare_models(accuracy, logits, 2 * logits, target).verdict
        'tie'
    """
    level = check_real(level, "level", 0, 1, strict=True)
    n_resamples = check_integer(n_resamples, "n_resamples", 2)
    if not len(first) == len(second) == len(target):
        raise ValueError(
            "first, second and target must hold the same samples, got "
            f"{len(first)}, {len(second)} and {len(target)}"
        )

    def difference(rows: Tensor | slice) -> float:
        labels = target[rows]
        return float(statistic(first[rows], labels)) - float(statistic(second[rows], labels))

    estimate = difference(slice(None))
    resamples = resampled(len(target), n_resamples, seed)
    values = [difference(rows.to(target.device)) for rows in resamples]
    half = _normal_quantile((1 + level) / 2) * float(np.std(values, ddof=1))
    return Comparison(Interval.around(estimate, half, level), len(target), "samples")


def paired_difference(
    first: Sequence[float], second: Sequence[float], unit: str, level: float = 0.95
) -> Comparison:
    """Mean difference of two values measured on the same few units, by Student's t.

    For runs that share a seed, or data sets that share a method: the unit is what was repeated
    independently, not the images within it. d̄ ± t s/√n with n - 1 degrees of freedom, sound for
    three units already if their differences are about normal; a bootstrap of so few is too narrow.

    Args:
        first, second: (n,) finite values, n >= 2, of the same units in the same order.
        unit: what the units are, in the plural: "seeds", "runs".
        level: coverage, strictly between 0 and 1.

    Returns:
        A `Comparison` over n units.

    Raises:
        ValueError: first and second differ in length, hold fewer than 2 or non-finite values;
            level outside (0, 1).

    Example:
        >>> paired_difference([0.031, 0.034, 0.030], [0.012, 0.011, 0.013], "seeds")
        Comparison(first is larger: +0.0197, 95 % in [+0.0121, +0.0273], 3 seeds)
    """
    level = check_real(level, "level", 0, 1, strict=True)
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"first and second must hold the same n >= 2 {unit}, got shapes {a.shape}, {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("first and second must be finite, got NaN or infinite values")
    n, estimate = len(a), float((a - b).mean())
    half = student_t(n - 1, level) * float((a - b).std(ddof=1)) / math.sqrt(n)
    return Comparison(Interval.around(estimate, half, level), n, unit)


def _normal_quantile(probability: float) -> float:
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64, device="cpu")))
