"""Calibration repaired after training: temperature scaling (Guo et al. 2017, arXiv 1706.04599)."""

import math

import torch
from torch import Tensor

from ._blocks import at_label, blocks
from ._checks import check_masked_logits, check_masked_logits_and_target
from ._devices import where_float64_is

# The search ends where the scaled logits of the top classes, and of wrong labels, differ by this
# little or this much: softmax is then uniform to four digits, or one-hot where they differ visibly.
_SMALLEST_SPREAD, _LARGEST_SPREAD = 1e-4, 1e4
_CERTAIN = -800.0  # exp of anything below is 0 in float64
_NO_SPREAD = 1e-300  # below it, logits count as equal: their 1/T would leave float64
_TOLERANCE = 1e-12  # relative, on β
_MAX_STEPS = 100
_GUESS_FROM = 1 << 21  # logits; fewer are read whole from the start


class TemperatureScaling:
    """Divide all logits by one number T > 0, chosen to minimise the negative log-likelihood.

    The loss is convex in β = 1/T: its slope is the mean of E_p[z] - z_y and its curvature the mean
    of Var_p[z], p = softmax(βz). `fit` finds the root of the slope with Newton steps inside a
    bracket, halving the bracket's logarithm where a step would leave it or brings too little, all
    in float64.

    The best T need not exist. Where every label has the largest logit, T = 0 would be best; where
    the labels' logits lie below their sample's average on the whole, T = ∞ or beyond. T is then
    capped, `capped` says so, and the fit tells little but that. The caps move with two scales of
    the data, the median distance from the largest logit to the next and the mean distance to a
    wrong label: a ten-thousandth of the smaller, ten thousand times the larger. Neither is moved by
    a masked class (-inf, -1e9, the dtype's minimum) nor by one certain and right sample.
    Logits that are all equal leave T open; it is then 1.

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

    @where_float64_is
    def fit(self, logits: Tensor, target: Tensor) -> "TemperatureScaling":
        """Choose T on held-out data; returns self.

        Args:
            logits: (N, K), K >= 2, any floating dtype; -inf where a class is masked. Not those the
                network was trained on: there it looks better than it is.
            target: (N,) int64 labels in 0..K-1, none of them a masked class.

        Raises:
            ValueError, TypeError: empty or misshapen logits, NaN or +inf among them; labels that do
                not fit, or whose logit is -inf.
        """
        check_masked_logits_and_target(logits, target)
        inverse, self.capped = _best_inverse_temperature(logits, target)
        self._temperature = 1 / inverse
        return self

    def transform(self, logits: Tensor) -> Tensor:
        """The scaled logits z / T.

        Args:
            logits: (N, K), K >= 2, any floating dtype; -inf, a masked class, stays so.

        Returns:
            (N, K), dtype and device of the logits.

        Raises:
            RuntimeError: before `fit`.
            ValueError, TypeError: empty or misshapen logits, NaN or +inf among them.
        """
        check_masked_logits(logits)
        return logits / self.temperature


def _best_inverse_temperature(logits: Tensor, target: Tensor) -> tuple[float, bool]:
    """The root of the loss's slope in β inside the caps, and whether a cap was hit."""
    top, wrong = _scales(logits, target)
    scales = [scale for scale in (top, wrong) if scale >= _NO_SPREAD]
    if not scales:
        return 1.0, False
    if max(scales) == math.inf:
        raise ValueError("logits must have differences within the range of float64, got infinite")
    low, high = _SMALLEST_SPREAD / max(scales), _LARGEST_SPREAD / min(scales)
    if _slope_and_curvature(logits, target, low)[0] >= 0:
        return low, True
    if _slope_and_curvature(logits, target, high)[0] <= 0:
        return high, True

    beta = step = _first_guess(logits, target, low, high)
    for _ in range(_MAX_STEPS):
        slope, curvature = _slope_and_curvature(logits, target, beta)
        low, high = (low, beta) if slope > 0 else (beta, high)
        newton = -slope / curvature if 0 < curvature < math.inf else math.inf
        following = beta + newton
        if not (low <= following <= high and abs(newton) <= abs(step) / 2):
            following = _middle(low, high)
        step, beta = following - beta, following
        if abs(step) <= _TOLERANCE * beta:
            break
    return beta, False


def _first_guess(logits: Tensor, target: Tensor, low: float, high: float) -> float:
    """A β inside the bracket: of many logits the best of some, which saves Newton steps."""
    stride = logits.numel() // _GUESS_FROM
    if stride > 1 and len(logits) >= stride:
        guess, capped = _best_inverse_temperature(logits[::stride], target[::stride])
        if not capped and low < guess < high:
            return guess
    return _middle(low, high)


def _middle(low: float, high: float) -> float:
    """The geometric mean; the product itself may leave float64."""
    return math.sqrt(low) * math.sqrt(high)


def _scales(logits: Tensor, target: Tensor) -> tuple[float, float]:
    """Median distance from the largest logit to the next, and mean distance to a wrong label.

    Samples without such a distance are left out: all logits tied or all others masked by -inf, a
    right label. 0 where none is left.
    """
    gaps, total, count = [], 0.0, 0
    for shifted, rows in blocks(logits, torch.float64):
        below = -at_label(shifted, target[rows])
        gaps.append(-shifted.masked_fill_(shifted == 0, -math.inf).amax(0))
        total, count = total + float(below.sum()), count + int((below > 0).sum())
    gap = torch.cat(gaps)
    gap = gap[gap < math.inf]
    return float(gap.median()) if len(gap) else 0.0, total / count if count else 0.0


def _slope_and_curvature(logits: Tensor, target: Tensor, beta: float) -> tuple[float, float]:
    """First and second derivative in β of the summed -log softmax(βz)_y.

    Logits are taken relative to their maximum: that cancels in E_p[z] - z_y and in Var_p[z], and
    every exponential is at most 1. A class so far below that its exponential is 0 counts as masked,
    however far that is: its logit never enters a product.
    """
    slope = curvature = 0.0
    for shifted, rows in blocks(logits, torch.float64):
        scaled = shifted.mul_(beta)
        label = at_label(scaled, target[rows])
        scaled.clamp_(min=_CERTAIN)
        weights = scaled.exp()
        total = weights.sum(0)
        weights *= scaled
        mean = weights.sum(0) / total
        weights *= scaled
        slope += float((mean - label).sum())
        # The top has distance 0 and at least 1/K of the weight: this loses a factor K of digits.
        curvature += float((weights.sum(0) / total - mean.square()).sum())
    return slope / beta, curvature / beta / beta
