"""Calibration errors over bins of confidence: the reliability curve, ECE and MCE."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

from .._checks import check_choice, check_integer, check_logits_and_target
from .._devices import where_float64_is
from .scores import check_confidence_and_correct, scores, scores_of_all

MANY = 2048  # samples from which on a bin's number is computed rather than searched for


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """Accuracy against confidence, bin by bin; what `reliability_curve` returns.

    Attributes:
        edges: (n_bins + 1,) float64 from 0 to 1; bin b holds edges[b] < c <= edges[b+1], and the
            first bin also c = 0.
        count: (n_bins,) int64, samples per bin.
        confidence: (n_bins,) float64, mean confidence; NaN where the bin is empty.
        accuracy: (n_bins,) float64, share of right predictions; NaN where the bin is empty.
        over_confidence: (n_bins,) float64, confidence - accuracy without the rounding error of
            that subtraction; NaN where the bin is empty.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor
    over_confidence: Tensor

    @property
    def gap(self) -> Tensor:
        """Deprecated: minus `over_confidence`."""
        warnings.warn(
            "ReliabilityCurve.gap is now over_confidence, of opposite sign",
            DeprecationWarning,
            stacklevel=2,
        )
        return -self.over_confidence

    def __repr__(self) -> str:
        n_bins, n_samples = len(self.count), int(self.count.sum())
        lines = [f"ReliabilityCurve({n_bins} bins, {n_samples} samples; empty bins not shown)"]
        lines.append("  bin                 count  confidence  accuracy  over-confidence")
        for bin_ in self.count.nonzero()[:, 0].tolist():
            low, high = self.edges[bin_ : bin_ + 2].tolist()
            lines.append(
                f"  ({low:.4f}, {high:.4f}] {int(self.count[bin_]):7d}  "
                f"{self.confidence[bin_]:10.4f}  {self.accuracy[bin_]:8.4f}  "
                f"{self.over_confidence[bin_] + 0.0:+15.4f}"
            )
        return "\n".join(lines)


@where_float64_is
def reliability_curve(
    logits: Tensor, target: Tensor, n_bins: int = 15, binning: str = "equal_width"
) -> ReliabilityCurve:
    """Confidence and accuracy per bin of confidence: the reliability diagram as numbers.

    Bins are (a, b]; confidence 0 counts in the first, confidence 1 in the last. Equal-width edges
    are k/n_bins, compared in the precision of the confidence: the float32 nearest to k/n_bins lies
    *on* that edge. Equal-mass edges are the order statistics of rank ⌈kN/n_bins⌉ (Nguyen and
    O'Connor 2015, arXiv 1508.05154); samples of equal confidence are never parted, so ties can
    leave a bin empty.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.
        n_bins: M, at least 1.
        binning: "equal_width" or "equal_mass".

    Returns:
        A `ReliabilityCurve`.

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit;
            n_bins < 1; unknown binning.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.5, 0.0], [0.0, 0.1], [3.0, 0.0]])
        >>> reliability_curve(logits, torch.tensor([0, 1, 1, 0]), n_bins=4)
        ReliabilityCurve(4 bins, 4 samples; empty bins not shown)
          bin                 count  confidence  accuracy  over-confidence
          (0.5000, 0.7500]       1      0.5250    1.0000          -0.4750
          (0.7500, 1.0000]       3      0.8836    0.6667          +0.2170
    """
    return curve(*_binned(logits, target, n_bins, binning))


@where_float64_is
def expected_calibration_error(
    logits: Tensor, target: Tensor, n_bins: int = 15, binning: str = "equal_width"
) -> Tensor:
    """Expected calibration error: Σ_b (n_b/N) |accuracy_b - confidence_b|.

    Source: Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599; bins as in `reliability_curve`.
    One pass over the logits, O(n_bins) state. A finite sample biases it upwards: differences by
    chance are counted in absolute value, so a perfectly calibrated model has ECE > 0 and more bins
    give more (Roelofs et al. 2022, arXiv 2012.08668). Where every prediction is right, ECE is
    `mean_misconfidence` whatever the bins.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.
        n_bins: M, at least 1.
        binning: "equal_width" or "equal_mass".

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit;
            n_bins < 1; unknown binning.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.5, 0.0], [0.0, 0.1], [3.0, 0.0]])
        >>> expected_calibration_error(logits, torch.tensor([0, 1, 1, 0]), n_bins=4)
        tensor(0.2815, dtype=torch.float64)
    """
    edges, parts = _scored(logits, target, n_bins, binning)
    residual = torch.zeros(len(edges) - 1, dtype=torch.float64, device=edges.device)
    for part in parts:
        residual.index_add_(0, bin_index(part[0], edges), part[1])
    return residual.abs().sum() / len(target)


@where_float64_is
def maximum_calibration_error(
    logits: Tensor, target: Tensor, n_bins: int = 15, binning: str = "equal_width"
) -> Tensor:
    """Maximum calibration error: the largest |accuracy_b - confidence_b| over non-empty bins.

    Source: Naeini et al. 2015. A bin with a single sample can decide it: read it with the counts.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.
        n_bins: M, at least 1.
        binning: "equal_width" or "equal_mass".

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit;
            n_bins < 1; unknown binning.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.5, 0.0], [0.0, 0.1], [3.0, 0.0]])
        >>> maximum_calibration_error(logits, torch.tensor([0, 1, 1, 0]), n_bins=4)
        tensor(0.4750, dtype=torch.float64)
    """
    _, totals = _binned(logits, target, n_bins, binning)
    return maximum_error(totals)


@where_float64_is
def ece_of_confidence(confidence: Tensor, correct: Tensor, n_bins: int = 15) -> Tensor:
    """ECE from confidences and right or wrong alone: all that `expected_calibration_error` needs.

    Args:
        confidence: (N,) in [0, 1], floating.
        correct: (N,) bool.
        n_bins: M equal-width bins as in `reliability_curve`, at least 1.

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or not floating in [0, 1]; correct not bool (N,);
            n_bins < 1.

    Example:
        >>> ece_of_confidence(torch.tensor([0.9, 0.8, 0.6]), torch.tensor([True, False, True]))
        tensor(0.4333, dtype=torch.float64)
    """
    return expected_error(totals_of_confidence(confidence, correct, n_bins))


@where_float64_is
def reliability_of_confidence(
    confidence: Tensor, correct: Tensor, n_bins: int = 15
) -> ReliabilityCurve:
    """Reliability curve from confidences and right or wrong alone; the ECE is `ece_of_confidence`.

    Args:
        confidence: (N,) in [0, 1], floating.
        correct: (N,) bool.
        n_bins: M equal-width bins as in `reliability_curve`, at least 1.

    Returns:
        A `ReliabilityCurve`, float64.

    Raises:
        ValueError, TypeError: as in `ece_of_confidence`.

    Example:
        >>> confidence, correct = torch.tensor([0.9, 0.8, 0.6]), torch.tensor([True, False, True])
        >>> reliability_of_confidence(confidence, correct, n_bins=2).count
        tensor([0, 3])
    """
    totals = totals_of_confidence(confidence, correct, n_bins)
    return curve(equal_width_edges(n_bins).to(totals.device), totals)


@where_float64_is
def debiased_ece(confidence: Tensor, correct: Tensor, n_bins: int = 15) -> Tensor:
    """ECE less the part that chance is expected to have added to it.

    Each bin's gap d_b, with the standard error s_b = √(a_b(1 - a_b)/n_b) of its accuracy a_b, is
    drawn again from N(d_b, s_b²); by how much that raises Σ_b (n_b/N) |d_b| on average is taken
    off: 2 ECE - Σ_b (n_b/N) E|d_b + s_b Z|. That is the debiased estimator of Kumar, Liang and Ma
    2019 (arXiv 1909.10155) with the mean, a folded normal's, written out instead of drawn. It takes
    off most of the bias, not all: s_b is 0 where all are right, and |d_b| is itself raised. It can
    be negative.

    Args:
        confidence: (N,) in [0, 1], floating.
        correct: (N,) bool.
        n_bins: M equal-width bins, at least 1.

    Returns:
        0-dim float64 tensor, below the ECE.

    Raises:
        ValueError, TypeError: as in `ece_of_confidence`.

    Example:
        >>> confidence, correct = torch.full((100,), 0.75), torch.arange(100) < 80
        >>> ece_of_confidence(confidence, correct), debiased_ece(confidence, correct)
        (tensor(0.0500, dtype=torch.float64), tensor(0.0460, dtype=torch.float64))
    """
    count, n_correct, residual = totals_of_confidence(confidence, correct, n_bins)
    filled = count > 0
    count, n_correct, gap = count[filled], n_correct[filled], residual[filled] / count[filled]
    accuracy = n_correct / count
    error = (accuracy * (1 - accuracy) / count).sqrt()
    ratio = torch.where(error > 0, gap / error, math.inf)
    folded = error * math.sqrt(2 / math.pi) * torch.exp(-(ratio**2) / 2)
    folded += gap * torch.where(error > 0, torch.special.erf(ratio / math.sqrt(2)), gap.sign())
    return (count * (2 * gap.abs() - folded)).sum() / count.sum()


def totals_of_confidence(confidence: Tensor, correct: Tensor, n_bins: int) -> Tensor:
    """(3, n_bins) float64: samples, right predictions and summed residual of each bin."""
    check_confidence_and_correct(confidence, correct)
    edges = equal_width_edges(n_bins).to(confidence.device)
    return _bin_totals(confidence, correct.double() - confidence.double(), correct, edges)


def _binned(logits: Tensor, target: Tensor, n_bins: int, binning: str) -> tuple[Tensor, Tensor]:
    """Validate, then (edges, totals) of all samples."""
    edges, parts = _scored(logits, target, n_bins, binning)
    return edges, _totals(parts, edges)


def _scored(
    logits: Tensor, target: Tensor, n_bins: int, binning: str
) -> tuple[Tensor, Iterable[tuple[Tensor, Tensor, Tensor]]]:
    """Validate, then edges, and (confidence, residual, correct) of some samples after others."""
    check_choice(binning, "binning", ("equal_width", "equal_mass"))
    if binning == "equal_width":
        check_logits_and_target(logits, target)
        return equal_width_edges(n_bins).to(logits.device), scores(logits, target)
    whole = scores_of_all(logits, target)
    return _equal_mass_edges(whole[0], n_bins), [whole]


def equal_width_edges(n_bins: int) -> Tensor:
    """(n_bins + 1,) float64: 0, 1/n_bins, ..., 1, each correctly rounded."""
    n_bins = check_integer(n_bins, "n_bins", 1)
    return _equal_width(n_bins).clone()


@lru_cache(maxsize=16)
def _equal_width(n_bins: int) -> Tensor:
    # From Python's correctly rounded k / n_bins: linspace is not, nor is a GPU's division by a
    # scalar, which multiplies by the reciprocal.
    return torch.tensor([k / n_bins for k in range(n_bins + 1)], dtype=torch.float64, device="cpu")


def _equal_mass_edges(confidence: Tensor, n_bins: int) -> Tensor:
    n_bins = check_integer(n_bins, "n_bins", 1)
    ranks = [-(-k * len(confidence) // n_bins) for k in range(1, n_bins)]
    inner = confidence.sort().values.double()[[rank - 1 for rank in ranks]]
    return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])


def equal_width_totals(logits: Tensor, target: Tensor, edges: Tensor) -> Tensor:
    """(3, n_bins) float64: what `_bin_totals` returns, of all samples."""
    return _totals(scores(logits, target), edges.to(logits.device))


def _totals(parts: Iterable[tuple[Tensor, Tensor, Tensor]], edges: Tensor) -> Tensor:
    return cast(Tensor, sum(_bin_totals(*part, edges) for part in parts))


def _bin_totals(confidence: Tensor, residual: Tensor, correct: Tensor, edges: Tensor) -> Tensor:
    """(3, n_bins) float64: samples, right predictions and summed residual of each bin."""
    index = bin_index(confidence, edges)
    totals = torch.zeros(3, len(edges) - 1, dtype=torch.float64, device=index.device)
    for total, values in zip(totals, (torch.ones_like(residual), correct, residual), strict=True):
        total.index_add_(0, index, values.double())
    return totals


def bin_index(confidence: Tensor, edges: Tensor) -> Tensor:
    """Bin (edges[b], edges[b+1]] of each confidence, int32; the outer bins are closed."""
    edges = edges.to(confidence.dtype)
    if _can_compute_index(confidence, edges):
        # This bin, or the next where the scale, a little too small, or rounding says so: what the
        # scale takes to a whole number or beyond lies above that edge.
        scale = (len(edges) - 1) * (1 - 4 * torch.finfo(edges.dtype).eps)
        index = (confidence * scale).to(torch.int32)
        upper = edges[1:].index_select(0, index.flatten()).view_as(confidence)
        return index.add_(confidence > upper)
    return torch.bucketize(confidence, edges[1:-1], out_int32=True)


def _can_compute_index(confidence: Tensor, edges: Tensor) -> bool:
    """Whether equal widths make a search needless, for which a CPU takes 18 ns per sample."""
    n_bins = len(edges) - 1
    exact = 16 * n_bins * torch.finfo(edges.dtype).eps < 1
    many = confidence.is_cpu and confidence.numel() >= MANY
    return many and exact and torch.equal(edges, _equal_width(n_bins).to(edges.dtype))


def curve(edges: Tensor, totals: Tensor) -> ReliabilityCurve:
    """The means of each bin, NaN of an empty one, from (3, n_bins) totals."""
    count, n_correct, residual = totals
    return ReliabilityCurve(
        edges=edges,
        count=count.long(),
        confidence=(n_correct - residual) / count,
        accuracy=n_correct / count,
        over_confidence=-residual / count,
    )


def expected_error(totals: Tensor) -> Tensor:
    """ECE, 0-dim, from (3, n_bins) totals."""
    count, _, residual = totals
    return residual.abs().sum() / count.sum()


def maximum_error(totals: Tensor) -> Tensor:
    """MCE, 0-dim, from (3, n_bins) totals."""
    count, _, residual = totals
    return (residual.abs() / count.clamp(min=1)).amax()
