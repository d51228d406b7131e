"""The Brier score of the confidence, split into reliability, resolution and uncertainty."""

from dataclasses import dataclass

from torch import Tensor

from .._devices import where_float64_is
from .binned import totals_of_confidence


@dataclass(frozen=True)
class BrierDecomposition:
    """Parts of a Brier score; what `brier_decomposition` returns.

    Attributes:
        score: mean (c - correct)²; reliability - resolution + uncertainty + within_bins.
        reliability: squared distance of confidence from accuracy, bin by bin; 0 is best.
        resolution: squared distance of the bins' accuracies from that of all; more is better.
        uncertainty: a (1 - a), a the accuracy of all: the score of whoever always says a.
        within_bins: what differences inside the bins add; small where bins are narrow.
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float

    def __repr__(self) -> str:
        return (
            f"BrierDecomposition(score {self.score:.4f} = reliability {self.reliability:.4f} - "
            f"resolution {self.resolution:.4f} + uncertainty {self.uncertainty:.4f} "
            f"{self.within_bins:+.4f} within bins)"
        )


@where_float64_is
def brier_decomposition(
    confidence: Tensor, correct: Tensor, n_bins: int = 15
) -> BrierDecomposition:
    """Split the Brier score of "the prediction is right" (Murphy 1973; Stephenson et al. 2008).

    Σ_b (n_b/N) (c̄_b - a_b)² - Σ_b (n_b/N) (a_b - a)² + a (1 - a), which is the score of a network
    that says c̄_b in bin b; the rest of the score is the spread of c within bins. A network that
    always says its own accuracy has reliability 0 and resolution 0: calibrated and useless.

    Args:
        confidence: (N,) in [0, 1], floating.
        correct: (N,) bool.
        n_bins: M equal-width bins, at least 1.

    Returns:
        A `BrierDecomposition`, float64.

    Raises:
        ValueError, TypeError: as in `ece_of_confidence`.

    Example:
        >>> import torch
        >>> confidence = torch.tensor([0.9, 0.9, 0.6, 0.6], dtype=torch.float64)
        >>> correct = torch.tensor([True, True, True, False])
        >>> parts = brier_decomposition(confidence, correct)
        >>> print(f"{parts.reliability:.4f} {parts.resolution:.4f} {parts.uncertainty:.4f}")
        0.0100 0.0625 0.1875
    """
    count, n_correct, residual = totals_of_confidence(confidence, correct, n_bins)
    filled = count > 0
    share, accuracy = count[filled] / count.sum(), n_correct[filled] / count[filled]
    whole = n_correct.sum() / count.sum()
    reliability = float((share * (residual[filled] / count[filled]) ** 2).sum())
    resolution = float((share * (accuracy - whole) ** 2).sum())
    uncertainty = float(whole * (1 - whole))
    score = float(((confidence.double() - correct.double()) ** 2).mean())
    return BrierDecomposition(
        score=score,
        reliability=reliability,
        resolution=resolution,
        uncertainty=uncertainty,
        within_bins=score - (reliability - resolution + uncertainty),
    )
