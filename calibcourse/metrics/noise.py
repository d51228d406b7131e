"""The noise floor: what ECE a perfectly calibrated network shows by chance alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import check_integer, check_real, check_seed
from .binned import bin_index, equal_width_edges
from .intervals import percentile_ends
from .scores import check_confidence

_DRAWN_AT_ONCE = 1 << 20  # Bernoulli draws held in memory


@dataclass(frozen=True, eq=False)
class NoiseFloor:
    """ECE of a perfectly calibrated network with given confidences; what `noise_floor` returns.

    Attributes:
        mean: its expected ECE.
        low, high: between them lies its ECE in the share `level` of samples of this size.
        level: in (0, 1).
        n_samples: N.
        draws: (n_draws,) float64, the ECE of each draw, ascending.
        edges: (n_bins + 1,) float64, of the bins.
        accuracy_low, accuracy_high: (n_bins,) float64, the same band for the accuracy of each bin
            of the reliability diagram; NaN where the bin is empty.
    """

    mean: float
    low: float
    high: float
    level: float
    n_samples: int
    draws: Tensor
    edges: Tensor
    accuracy_low: Tensor
    accuracy_high: Tensor

    def __repr__(self) -> str:
        return (
            f"NoiseFloor(mean {self.mean:.4f}, {100 * self.level:g} % in "
            f"[{self.low:.4f}, {self.high:.4f}], {self.n_samples:,} samples)"
        )

    def share_above(self, ece: float) -> float:
        """How often chance alone gives a calibrated network at least this ECE, in (0, 1].

        (1 + draws that reach it) / (1 + draws): never 0, as no number of draws shows never.
        """
        return (1 + int((self.draws >= ece).sum())) / (1 + len(self.draws))


def noise_floor(
    confidence: Tensor, n_bins: int = 15, n_draws: int = 1000, level: float = 0.95, seed: int = 0
) -> NoiseFloor:
    """The ECE of a perfectly calibrated network with these confidences and as many samples.

    Calibrated means: right with probability c. So each sample's right or wrong is drawn from a coin
    that falls right with probability c, and the ECE of the draws is what chance alone makes of
    them (consistency resampling, Bröcker and Smith 2007). It needs no labels and no logits. An ECE
    inside the band is no evidence against calibration; nor is it evidence for it.

    Args:
        confidence: (N,) in [0, 1], floating; from `confidence_and_correct`.
        n_bins: M equal-width bins, those of the ECE that it is compared with.
        n_draws: at least 1; a thousand place the ends of a 95 % band to about 3 % of its width.
        level: share of the draws between `low` and `high`.
        seed: decides the draws, the same on every device.

    Returns:
        A `NoiseFloor`, on the CPU.

    Raises:
        ValueError, TypeError: confidence empty, misshapen or not floating in [0, 1]; n_bins or
            n_draws < 1; level outside (0, 1).

    Example:
        >>> noise_floor(torch.full((1000,), 0.8))
        NoiseFloor(mean 0.0099, 95 % in [0.0000, 0.0280], 1,000 samples)
    """
    check_confidence(confidence)
    n_draws = check_integer(n_draws, "n_draws", 1)
    level = check_real(level, "level", 0, 1, strict=True)
    edges = equal_width_edges(n_bins)
    confidence = confidence.detach().cpu()
    index, confidence = bin_index(confidence, edges), confidence.double()
    count = torch.bincount(index, minlength=n_bins)
    none = torch.zeros(n_bins, dtype=torch.float64, device="cpu")
    expected = none.index_add_(0, index, confidence)
    n_right = draw_right(confidence, index, n_bins, n_draws, seed)

    draws = ((n_right - expected).abs().sum(1) / len(confidence)).sort().values
    low, high = percentile_ends(draws, level)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device="cpu")
    accuracy_low, accuracy_high = (n_right / count).quantile(tails, dim=0)
    return NoiseFloor(
        mean=float(draws.mean()),
        low=low,
        high=high,
        level=level,
        n_samples=len(confidence),
        draws=draws,
        edges=edges,
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
    )


def draw_right(confidence: Tensor, index: Tensor, n_groups: int, n_draws: int, seed: int) -> Tensor:
    """(n_draws, n_groups) float64: right predictions per group where each is right with its c."""
    generator = torch.Generator().manual_seed(check_seed(seed))
    n_right = torch.zeros(n_draws, n_groups, dtype=torch.float64, device="cpu")
    for rows in n_right.split(max(1, _DRAWN_AT_ONCE // len(confidence))):
        coins = torch.rand(
            len(rows), len(confidence), generator=generator, dtype=torch.float64, device="cpu"
        )
        rows.index_add_(1, index, (coins < confidence).double())
    return n_right
