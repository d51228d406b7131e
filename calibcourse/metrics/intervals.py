"""Intervals: by the bootstrap for any metric, by Wilson for a share, by Student for a mean."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._checks import check_integer, check_logits_and_target, check_real, check_seed
from .._devices import where_float64_is


@dataclass(frozen=True)
class Interval:
    """An estimate between the ends of its confidence interval."""

    low: float
    estimate: float
    high: float
    level: float

    @classmethod
    def around(cls, estimate: float, half: float, level: float) -> "Interval":
        """An interval that reaches `half` to both sides of an estimate."""
        return cls(estimate - half, estimate, estimate + half, level)

    def __repr__(self) -> str:
        return (
            f"Interval({self.estimate:.4f}, {100 * self.level:g} % in "
            f"[{self.low:.4f}, {self.high:.4f}])"
        )


def resampled(n_samples: int, n_resamples: int, seed: int) -> Iterator[Tensor]:
    """Yield the rows of one bootstrap resample after another; the same on every device."""
    n_resamples = check_integer(n_resamples, "n_resamples", 1)
    seed = check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_resamples):
        yield torch.randint(n_samples, (n_samples,), generator=generator, device="cpu")


def percentile_ends(values: Tensor, level: float) -> list[float]:
    """The two quantiles between which the middle `level` of the values lie."""
    level = check_real(level, "level", 0, 1, strict=True)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device="cpu")
    return values.quantile(tails).tolist()


@where_float64_is
def bootstrap_interval(
    statistic: Callable[[Tensor, Tensor], Tensor | float],
    logits: Tensor,
    target: Tensor,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of any metric (Efron 1979): resample samples, recompute.

    Sound for means (accuracy, NLL, Brier). For ECE, MCE, KCE and smECE read it as a measure of
    spread, not as an interval that covers: these add up absolute or squared differences, so chance
    counts as error. The estimate is biased upwards by that once, and each resample a second time,
    since it takes the sample's own noise for truth. The interval is therefore shifted up; for a
    well-calibrated model it can even lie above the estimate, and it never contains 0.

    Args:
        statistic: called as statistic(logits, target), returns one number.
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.
        level: coverage, strictly between 0 and 1.
        n_resamples: number of resamples of size N, at least 1; their cost is that of as many calls.
        seed: decides the resamples, the same on every device.

    Returns:
        An `Interval` whose estimate is the statistic of the data as given.

    Raises:
        ValueError, TypeError: invalid logits or labels; level outside (0, 1); n_resamples < 1.

    Example:
        >>> from calibcourse import accuracy
        >>> logits = torch.tensor([[1.0, 0.0]]).repeat(100, 1)
        >>> target = torch.tensor([0] * 80 + [1] * 20)
        >>> bootstrap_interval(accuracy, logits, target, n_resamples=200)
        Interval(0.8000, 95 % in [0.7298, 0.8800])
    """
    check_logits_and_target(logits, target)
    level = check_real(level, "level", 0, 1, strict=True)
    values = [
        float(statistic(logits[rows.to(target.device)], target[rows.to(target.device)]))
        for rows in resampled(len(target), n_resamples, seed)
    ]
    low, high = percentile_ends(torch.tensor(values, dtype=torch.float64, device="cpu"), level)
    return Interval(low, float(statistic(logits, target)), high, level)


def wilson_interval(successes: np.ndarray, trials: np.ndarray, z: float = 1.96) -> np.ndarray:
    """Wilson's score interval of a binomial share (Wilson 1927): sensible at 0 %, 100 % and n = 1.

    Args:
        successes, trials: arrays of the same shape, trials >= 1.
        z: normal quantile; 1.96 gives 95 %.

    Returns:
        Array (2, ...): lower and upper end.

    Example:
        >>> wilson_interval(np.array([10.0]), np.array([10.0])).round(3)
        array([[0.722],
               [1.   ]])
    """
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return np.clip(np.stack([centre - half, centre + half]), 0.0, 1.0)


def student_t(freedom: int, level: float = 0.95) -> float:
    """The t for which Student's distribution has a share `level` of its mass between -t and t.

    Args:
        freedom: degrees of freedom, at least 1: the number of values less one.
        level: in (0, 1).

    Returns:
        t > 0, to about twelve digits.

    Raises:
        TypeError, ValueError: freedom is no positive integer, level is outside (0, 1).

    Example:
        >>> round(student_t(2), 3)
        4.303
    """
    freedom = check_integer(freedom, "freedom", 1)
    level = check_real(level, "level", 0, 1, strict=True)
    low, high = 0.0, math.pi / 2  # of the angle arctan(t / sqrt(freedom))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _mass(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _mass(angle: float, freedom: int) -> float:
    """Student's distribution between -t and t (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for i in range(1 + odd, freedom, 2):
        total += term
        term *= i / (i + 1) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
