"""ECE and curvature in one sandwich (THEORY.md 4.3)."""

import math
import sys
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor, nn

from .._checks import check_integer
from .._conduct import undisturbed
from ..curvature.last_layer import logits_in_batches
from ..metrics import accuracy, expected_calibration_error, mean_misconfidence
from .of_curvature import Ladder, curvature_ladder


@dataclass(frozen=True)
class Sandwich:
    """ECE between bounds by curvature; what `direct_sandwich` returns.

    Attributes:
        lower: λ_max/(2 C_J²) - err (it may be negative, and then says nothing).
        ece: the calibration error.
        upper: (K-1) λ_max + err; nan where the network has no trainable output bias.
        error_rate: err, the share of wrong predictions.
        lambda_max: λ_max(G).
        inner_lower, inner_upper: abs(u - err) and u + err, the sandwich before curvature enters.
        misconfidence: u = 1 - c̄.
        missing: why upper is not available; empty where it is.
        tolerance: relative error that `holds` allows for.
    """

    lower: float
    ece: float
    upper: float
    error_rate: float
    lambda_max: float
    inner_lower: float
    inner_upper: float
    misconfidence: float
    missing: str = ""
    tolerance: float = field(default=0.0, repr=False)

    @property
    def holds(self) -> bool:
        """Whether lower <= inner_lower <= ece <= inner_upper <= upper, as far as available."""
        # All these are differences and sums of numbers up to err + u: that is what errors scale by.
        # Below the smallest normal number digits are lost.
        allowed = max(self.tolerance * self.inner_upper, sys.float_info.min)
        values = [self.lower, self.inner_lower, self.ece, self.inner_upper]
        if not self.missing:
            values.append(self.upper)
        return all(a <= b + allowed for a, b in pairwise(values))

    def __repr__(self) -> str:
        upper = f"not available: {self.missing}" if self.missing else f"{self.upper:.4g}"
        return (
            f"Sandwich({self.lower:.4g} <= {self.inner_lower:.4g} <= ECE = {self.ece:.4g} <= "
            f"{self.inner_upper:.4g} <= {upper}, holds={self.holds})"
        )


@undisturbed()
def direct_sandwich(
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    n_bins: int = 15,
    ladder: Ladder | None = None,
) -> Sandwich:
    """ECE and curvature are coupled up to the error rate (THEORY.md 4.3).

    λ_max/(2 C_J²) - err <= |u - err| <= ECE <= u + err <= (K-1) λ_max + err, for any bins. Where
    every training prediction is right, err = 0 and the two are forced together; on test data err
    stays, and nothing forces them.

    Args:
        model: maps (N, ...) to logits (N, K); BatchNorm and dropout must be in eval mode.
        inputs: (N, ...), the model's dtype and device.
        target: (N,), int64 labels in 0..K-1.
        n_bins: M, bins of equal width in confidence.
        ladder: `curvature_ladder` of the same model and inputs, if it is at hand: saves its cost.

    Returns:
        `Sandwich`.

    Raises:
        ValueError, TypeError: as for `curvature_ladder`; n_bins < 1.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 3)
        >>> _, _ = nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        >>> direct_sandwich(model, torch.eye(2), torch.tensor([0, 0]))
        Sandwich(0.125 <= 0.6667 <= ECE = 0.6667 <= 0.6667 <= 1, holds=True)
    """
    n_bins = check_integer(n_bins, "n_bins", 1)
    ladder = ladder or curvature_ladder(model, inputs, target)
    logits = logits_in_batches(model, inputs)
    error_rate = 1 - float(accuracy(logits, target))
    misconfidence = float(mean_misconfidence(logits))
    return Sandwich(
        # A constant network has neither curvature nor Jacobian: nothing bounds u from below but 0.
        lower=ladder.u0 / (2 * ladder.max_jacobian_norm**2 or math.inf) - error_rate,
        ece=float(expected_calibration_error(logits, target, n_bins)),
        upper=math.nan
        if "l4" in ladder.missing
        else (logits.shape[1] - 1) * ladder.u0 + error_rate,
        error_rate=error_rate,
        lambda_max=ladder.u0,
        inner_lower=abs(misconfidence - error_rate),
        inner_upper=misconfidence + error_rate,
        misconfidence=misconfidence,
        missing=ladder.missing.get("l4", ""),
        tolerance=ladder.tolerance,
    )
