"""Calibration repaired after training: temperature scaling (Guo et al. 2017, arXiv 1706.04599)."""

import math

import torch
from torch import Tensor

from ._blocks import at_label, blocks
from ._checks import check_logits, check_logits_and_target

# The search ends where the mean spread of the scaled logits, β · mean(z_max - z_min), is this small
# or this large: softmax is then uniform to four digits, or one-hot wherever logits differ visibly.
_SMALLEST_SPREAD, _LARGEST_SPREAD = 1e-4, 1e4
_NO_SPREAD = 1e-300  # below it, logits count as equal: their 1/T would leave float64
_TOLERANCE = 1e-12  # relative, on β
_MAX_STEPS = 100


class TemperatureScaling:
    """Divide all logits by one number T > 0, chosen to minimise the negative log-likelihood.

    The loss is convex in β = 1/T: its slope is the mean of E_p[z] - z_y and its curvature the mean
    of Var_p[z], p = softmax(βz). `fit` finds the root of the slope with Newton steps inside a
    bracket, halving the bracket's logarithm where a step would leave it or brings too little, all
    in float64.

    The best T need not exist. Where every label has the largest logit, T = 0 would be best; where
    the labels' logits lie below their sample's average on the whole, T = ∞ or beyond. T is then
    capped, `capped` says so, and the fit tells little but that. The caps move with the scale s =
    mean(z_max - z_min) of the data: s/1e4 <= T <= 1e4·s. Logits that are all equal leave T open; it
    is then 1.

    Dividing by T keeps the order of the logits: confidence changes, the predictions do not.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0]]).repeat(10, 1)  # 98 % sure
        >>> target = torch.tensor([0] * 8 + [1] * 2)  # 80 % right
        >>> scaling = TemperatureScaling().fit(logits, target)
        >>> scaling
        TemperatureScaling(temperature=2.8854)
        >>> scaling.transform(logits).softmax(1)[0]
        tensor([0.8000, 0.2000])
    """

    def __init__(self) -> None:
        self._temperature: float | None = None
        self.capped = False

    def __repr__(self) -> str:
        if self._temperature is None:
            return "TemperatureScaling(not fitted)"
        return f"TemperatureScaling(temperature={self._temperature:.5g}{', capped' * self.capped})"

    @property
    def temperature(self) -> float:
        """T > 0, as fitted.

        Raises:
            RuntimeError: before `fit`.
        """
        if self._temperature is None:
            raise RuntimeError("not fitted: call fit(logits, target) first")
        return self._temperature

    def fit(self, logits: Tensor, target: Tensor) -> "TemperatureScaling":
        """Choose T on held-out data; returns self.

        Args:
            logits: (N, K), K >= 2, any floating dtype. Not those the network was trained on: there
                it looks better than it is.
            target: (N,) int64 labels in 0..K-1.

        Raises:
            ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.
        """
        check_logits_and_target(logits, target)
        inverse, self.capped = _best_inverse_temperature(logits, target)
        self._temperature = 1 / inverse
        return self

    def transform(self, logits: Tensor) -> Tensor:
        """The scaled logits z / T.

        Args:
            logits: (N, K), K >= 2, any floating dtype.

        Returns:
            (N, K), dtype and device of the logits.

        Raises:
            RuntimeError: before `fit`.
            ValueError, TypeError: empty, misshapen or non-finite logits.
        """
        check_logits(logits)
        return logits / self.temperature


def _best_inverse_temperature(logits: Tensor, target: Tensor) -> tuple[float, bool]:
    """The root of the loss's slope in β inside the caps, and whether a cap was hit."""
    scale = sum(float(-shifted.amin(0).sum()) for shifted, _ in blocks(logits, torch.float64))
    scale /= len(logits)
    if scale < _NO_SPREAD:
        return 1.0, False
    if scale == math.inf:
        raise ValueError("logits must have differences within the range of float64, got infinite")
    low, high = _SMALLEST_SPREAD / scale, _LARGEST_SPREAD / scale
    if _slope_and_curvature(logits, target, low)[0] >= 0:
        return low, True
    if _slope_and_curvature(logits, target, high)[0] <= 0:
        return high, True

    beta = step = 1 / scale
    for _ in range(_MAX_STEPS):
        slope, curvature = _slope_and_curvature(logits, target, beta)
        low, high = (low, beta) if slope > 0 else (beta, high)
        newton = -slope / curvature if curvature > 0 else math.inf
        if not (low <= beta + newton <= high and abs(newton) <= abs(step) / 2):
            newton = math.sqrt(low * high) - beta
        step, beta = newton, beta + newton
        if abs(step) <= _TOLERANCE * beta:
            break
    return beta, False


def _slope_and_curvature(logits: Tensor, target: Tensor, beta: float) -> tuple[float, float]:
    """First and second derivative in β of the summed -log softmax(βz)_y.

    Logits are taken relative to their maximum: that cancels in E_p[z] - z_y and in Var_p[z], and
    every exponential is at most 1.
    """
    slope = curvature = 0.0
    for shifted, rows in blocks(logits, torch.float64):
        weights = (beta * shifted).exp_()
        weights /= weights.sum(0)
        mean = (weights * shifted).sum(0)
        slope += float((mean - at_label(shifted, target[rows])).sum())
        curvature += float((weights * (shifted - mean).square_()).sum())
    return slope, curvature
