"""Calibration of a classifier, measured from its logits.

Notation (THEORY.md 1): p = softmax(z), ŷ = argmax z (the lowest index on a tie), confidence
c = p_ŷ, misconfidence 1 − c = Σ_{j≠ŷ} p_j. Per sample the **gap** is 1{ŷ = y} − c: calibrated
means that gaps average to zero among samples of equal confidence.

Two habits run through the file. Samples are read in blocks that fit the processor's cache, so that
no N × K array of probabilities is ever written. And 1 − c is never a subtraction: with
s = Σ_{j≠ŷ} e^{z_j − z_ŷ} it is s/(1+s), right to the last digits where 1 − c would round to 0.

Results are float64 on the device of the logits; no gradient flows through a measurement.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ._checks import (
    check_choice,
    check_integer,
    check_logits,
    check_logits_and_target,
    check_real,
)

# Logits per block: three float32 working arrays of a block stay in a processor's cache, and from 10
# classes on its vectors of samples are too short for torch to share out between threads, whose
# meetings would cost more than they save. A GPU wants fewer, larger launches.
_BLOCK_SIZE = {"cpu": 1 << 18}
_BLOCK_SIZE_ACCELERATOR = 1 << 25

# smooth_calibration_error: cells of the grid that carries the gaps, and halvings of [0, 1], after
# which σ is known to 1e-9.
_N_CELLS = 1 << 14
_N_BISECTIONS = 30


# ---------------------------------------------------------------------------- results


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """Accuracy against confidence, bin by bin; what `reliability_curve` returns.

    Attributes:
        edges: (n_bins + 1,) float64 from 0 to 1; bin b holds edges[b] < c <= edges[b+1], and the
            first bin also c = 0.
        count: (n_bins,) int64, samples per bin.
        confidence: (n_bins,) float64, mean confidence; NaN where the bin is empty.
        accuracy: (n_bins,) float64, share of right predictions; NaN where the bin is empty.
        gap: (n_bins,) float64, accuracy − confidence without the rounding error of that
            subtraction; negative where the model is over-confident; NaN where the bin is empty.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor
    gap: Tensor

    def __repr__(self) -> str:
        n_bins, n_samples = len(self.count), int(self.count.sum())
        lines = [f"ReliabilityCurve({n_bins} bins, {n_samples} samples; empty bins not shown)"]
        lines.append("  bin                 count  confidence  accuracy      gap")
        for bin_ in self.count.nonzero()[:, 0].tolist():
            low, high = self.edges[bin_ : bin_ + 2].tolist()
            lines.append(
                f"  ({low:.4f}, {high:.4f}] {int(self.count[bin_]):7d}  "
                f"{self.confidence[bin_]:10.4f}  {self.accuracy[bin_]:8.4f}  {self.gap[bin_]:+7.4f}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class CalibrationSummary:
    """What `CalibrationError.compute` returns: plain numbers and the curve behind them."""

    expected_calibration_error: float
    maximum_calibration_error: float
    accuracy: float
    mean_confidence: float
    count: int
    curve: ReliabilityCurve

    def __repr__(self) -> str:
        return (
            f"CalibrationSummary(expected_calibration_error={self.expected_calibration_error:.4f}, "
            f"maximum_calibration_error={self.maximum_calibration_error:.4f}, "
            f"accuracy={self.accuracy:.4f}, mean_confidence={self.mean_confidence:.4f}, "
            f"count={self.count})"
        )


@dataclass(frozen=True)
class Interval:
    """An estimate between the ends of its confidence interval."""

    low: float
    estimate: float
    high: float
    level: float

    def __repr__(self) -> str:
        return (
            f"Interval({self.estimate:.4f}, {100 * self.level:g} % in "
            f"[{self.low:.4f}, {self.high:.4f}])"
        )


# ---------------------------------------------------------------------------- per sample


def confidence_and_correct(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence of each sample, and whether its prediction is right.

    c = max softmax(z) = 1 / Σ_j e^{z_j − z_max}; correct = 1{ŷ = y}, where ŷ is the lowest index
    that attains the maximum, on every device (THEORY.md 1).

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K−1.

    Returns:
        confidence: (N,) in (0, 1], float64 for float64 logits and float32 for all others.
        correct: (N,) bool.

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [-1.0, 3.0]])
        >>> confidence, correct = confidence_and_correct(logits, torch.tensor([0, 1, 1]))
        >>> confidence
        tensor([0.8808, 0.5000, 0.9820])
        >>> correct
        tensor([ True, False,  True])
    """
    confidence, _, correct = _scores_of_all(logits, target)
    return confidence, correct


# ---------------------------------------------------------------------------- means


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of samples whose predicted class, the lowest index on a tie, is the label.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K−1.

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> accuracy(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    check_logits_and_target(logits, target)
    return _mean(correct for _, _, correct in _scores(logits, target))


def mean_confidence(logits: Tensor, target: Tensor | None = None) -> Tensor:
    """Mean of the largest probability, c̄; its distance from the accuracy is at most ECE.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: not used; accepted so that every metric is called alike.

    Returns:
        0-dim float64 tensor in [1/K, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits.

    Example:
        >>> mean_confidence(torch.tensor([[0.0, 0.0], [0.0, 100.0]]))
        tensor(0.7500, dtype=torch.float64)
    """
    return 1 - mean_misconfidence(logits)


def mean_misconfidence(logits: Tensor, target: Tensor | None = None) -> Tensor:
    """u = mean of Σ_{j≠ŷ} p_j, the probability that the model leaves to the other classes.

    It equals 1 − c̄ but keeps its relative precision where c̄ rounds to 1, and it is what curvature
    is sandwiched by (THEORY.md 4.2).

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: not used; accepted so that every metric is called alike.

    Returns:
        0-dim float64 tensor in [0, 1 − 1/K].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits.

    Example:
        >>> mean_misconfidence(torch.tensor([[0.0, 50.0]]))  # 1 - c would be 0 in float32
        tensor(1.9287e-22, dtype=torch.float64)
    """
    check_logits(logits)
    rests = (_rest(shifted)[0] for shifted, _ in _blocks(logits))
    return _mean(rest / (1 + rest) for rest in rests)


def negative_log_likelihood(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of −log p_y, the cross-entropy, in nats.

    −log p_y = (z_ŷ − z_y) + log(1 + Σ_{j≠ŷ} e^{z_j − z_ŷ}): both terms are >= 0, so nothing cancels
    and a loss of 1e-20 is reported as such.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K−1.

    Returns:
        0-dim float64 tensor, >= 0.

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> negative_log_likelihood(torch.zeros(5, 10), torch.arange(5))  # log 10
        tensor(2.3026, dtype=torch.float64)
    """
    check_logits_and_target(logits, target)
    return _mean(
        torch.log1p(_rest(shifted)[0]) - _at_label(shifted, target[rows])
        for shifted, rows in _blocks(logits)
    )


def brier_score(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance between the probabilities and the one-hot label (Brier 1950).

    Σ_k (p_k − 1{k=y})² = (Σ_{j≠y} p_j)² + Σ_{j≠y} p_j², summed over all K classes as Brier did: for
    K = 2 it is twice the binary score of some libraries.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K−1.

    Returns:
        0-dim float64 tensor in [0, 2].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> brier_score(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.5000, dtype=torch.float64)
    """
    check_logits_and_target(logits, target)
    return _mean(
        _squared_distance_to_label(shifted, target[rows]) for shifted, rows in _blocks(logits)
    )


# ---------------------------------------------------------------------------- binned errors


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
        target: (N,) int64 labels in 0..K−1.
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
          bin                 count  confidence  accuracy      gap
          (0.5000, 0.7500]       1      0.5250    1.0000  +0.4750
          (0.7500, 1.0000]       3      0.8836    0.6667  -0.2170
    """
    return _curve(*_binned(logits, target, n_bins, binning))


def expected_calibration_error(
    logits: Tensor, target: Tensor, n_bins: int = 15, binning: str = "equal_width"
) -> Tensor:
    """Expected calibration error: Σ_b (n_b/N) |accuracy_b − confidence_b|.

    Source: Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599; bins as in `reliability_curve`.
    One pass over the logits, O(n_bins) state. A finite sample biases it upwards: chance gaps are
    counted in absolute value, so a perfectly calibrated model has ECE > 0 and more bins give more
    (Roelofs et al. 2022, arXiv 2012.08668). Where every prediction is right, ECE is
    `mean_misconfidence` whatever the bins.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K−1.
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
    _, totals = _binned(logits, target, n_bins, binning)
    return _expected_error(totals)


def maximum_calibration_error(
    logits: Tensor, target: Tensor, n_bins: int = 15, binning: str = "equal_width"
) -> Tensor:
    """Maximum calibration error: the largest |accuracy_b − confidence_b| over non-empty bins.

    Source: Naeini et al. 2015. A bin with a single sample can decide it: read it with the counts.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K−1.
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
    return _maximum_error(totals)


class CalibrationError:
    """ECE and its companions over a stream of batches, in O(n_bins) float64 state.

    Batches of any sizes give what one call on all samples gives. Which bin a sample falls in, the
    counts and the accuracy are identical to the last bit; the summed gaps agree to float64 rounding
    (about 1e-15 relative), because gaps span many magnitudes and addition rounds in the order of
    arrival.

    Args:
        n_bins: M, at least 1; equal-width bins as in `reliability_curve`.

    Raises:
        ValueError, TypeError: n_bins is not an int of at least 1.

    Example:
        >>> metric = CalibrationError(n_bins=10)
        >>> for batch in (torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0]])):
        ...     _ = metric.update(batch, torch.zeros(len(batch), dtype=torch.int64))
        >>> metric.compute()  # doctest: +NORMALIZE_WHITESPACE
        CalibrationSummary(expected_calibration_error=0.2992, maximum_calibration_error=0.7311,
        accuracy=0.6667, mean_confidence=0.8548, count=3)
    """

    def __init__(self, n_bins: int = 15):
        self._edges = _equal_width_edges(n_bins)
        self.reset()

    def reset(self) -> "CalibrationError":
        """Forget every sample; returns self."""
        self._totals = torch.zeros(3, len(self._edges) - 1, dtype=torch.float64)
        return self

    def update(self, logits: Tensor, target: Tensor) -> "CalibrationError":
        """Add a batch; returns self.

        Args:
            logits: (N, K), K >= 2, any floating dtype and device; K may differ between batches.
            target: (N,) int64 labels in 0..K−1.

        Raises:
            ValueError, TypeError: as in `expected_calibration_error`; the state is then unchanged.
        """
        check_logits_and_target(logits, target)
        return self._add(_equal_width_totals(logits, target, self._edges))

    def merge(self, other: "CalibrationError") -> "CalibrationError":
        """Add the samples that another one has seen, on another worker say; returns self.

        Args:
            other: a `CalibrationError` with the same n_bins; it stays as it is.

        Raises:
            TypeError: other is something else.
            ValueError: other has another number of bins.
        """
        if not isinstance(other, CalibrationError):
            raise TypeError(f"other must be a CalibrationError, got {type(other).__name__}")
        if len(other._edges) != len(self._edges):
            raise ValueError(
                f"other must have n_bins = {len(self._edges) - 1}, got {len(other._edges) - 1}"
            )
        return self._add(other._totals)

    def compute(self) -> CalibrationSummary:
        """Summarise all samples seen so far.

        Raises:
            RuntimeError: there are none.
        """
        count, n_correct, gap = self._totals.sum(1).tolist()
        if count == 0:
            raise RuntimeError("no samples yet: call update(logits, target) before compute()")
        return CalibrationSummary(
            expected_calibration_error=float(_expected_error(self._totals)),
            maximum_calibration_error=float(_maximum_error(self._totals)),
            accuracy=n_correct / count,
            mean_confidence=(n_correct - gap) / count,
            count=int(count),
            curve=_curve(self._edges.to(self._totals.device), self._totals),
        )

    def _add(self, totals: Tensor) -> "CalibrationError":
        # The state follows the data: on a GPU no update waits for a copy.
        self._totals = self._totals.to(totals.device) + totals
        return self


# ---------------------------------------------------------------------------- without bins


def kernel_calibration_error(logits: Tensor, target: Tensor, bandwidth: float = 0.4) -> Tensor:
    """Kernel calibration error: ECE's question asked without bins.

    KCE² = (1/N²) Σ_ij r_i r_j e^{−|c_i − c_j|/h}, r = 1{ŷ=y} − c: the MMCE of Kumar, Sarawagi and
    Jain 2018 over all pairs, also the biased (V-statistic) SKCE with Laplace kernel of Widmann et
    al. 2019, arXiv 1910.11385. Like ECE it is biased upwards by finite samples: its terms i = j
    alone give mean(r²)/N.

    Exact in O(N log N) time and O(N) memory. On sorted confidences the kernel is the covariance of
    a first-order autoregression, whose Cholesky factor is known: with a_i = e^{−(c_i − c_{i−1})/h}
    and T_i = r_i + a_i T_{i−1}, Σ_ij r_i r_j e^{−|c_i − c_j|/h} = Σ_i (1 − a_{i+1}²) T_i², where
    a_{N+1} = 0. Every term is >= 0 and every factor <= 1: nothing cancels, overflows or needs a cap
    on the bandwidth.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K−1.
        bandwidth: h > 0, in units of confidence; 0.4 is Kumar et al.'s.

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit;
            bandwidth <= 0.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.5, 0.0], [0.0, 0.1], [3.0, 0.0]])
        >>> kernel_calibration_error(logits, torch.tensor([0, 1, 1, 0]))
        tensor(0.1554, dtype=torch.float64)
    """
    check_real(bandwidth, "bandwidth", 0, strict=True)
    confidence, gap, _ = _scores_of_all(logits, target)
    confidence, order = confidence.sort()
    distance = confidence.double().diff() / bandwidth
    field = _discounted_sums(gap[order], torch.exp(-distance))
    field *= field
    field[:-1] *= -torch.expm1(-2 * distance)  # 1 − a²
    return field.sum().sqrt() / len(field)


def smooth_calibration_error(logits: Tensor, target: Tensor) -> Tensor:
    """smECE, the smooth ECE of Błasiok and Nakkiran 2023 (arXiv 2309.12236): no bins, no parameter.

    The gaps, as a signed measure on [0, 1], are smoothed by a Gaussian of width σ that is reflected
    at both ends; smECE_σ is the integral of the absolute value. It falls as σ grows, and smECE is
    its one fixed point, smECE_σ = σ: the error is judged at the scale of its own size. It is
    continuous in the confidences, as no binned error is, and small exactly when a calibrated model
    is near (their "consistent calibration measure"). It is what the package relplot reports; the
    "smooth calibration error" smCE, a supremum over Lipschitz functions, is another quantity.

    Cost: one pass over the logits, then 30 Fourier transforms of fixed length. Each gap is shared
    between the two nearest of 16,384 cells: where σ is above 1e-3 this changes the result by less
    than 1e-3 of itself; where it is below 1e-4 the cells, not σ, decide what is averaged.
    Deterministic.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K−1.

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.5, 0.0], [0.0, 0.1], [3.0, 0.0]])
        >>> smooth_calibration_error(logits, torch.tensor([0, 1, 1, 0]))
        tensor(0.1686, dtype=torch.float64)
    """
    check_logits_and_target(logits, target)
    cells = torch.zeros(_N_CELLS, dtype=torch.float64, device=logits.device)
    for confidence, gap, _ in _scores(logits, target):
        _share_between_cells(cells, confidence.double(), gap)
    return _smooth_fixed_point(cells / len(logits))


# ---------------------------------------------------------------------------- intervals


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
    spread, not as an interval that covers: these add up absolute or squared gaps, so chance gaps
    count as error. The estimate already carries one dose of that upward bias, and each resample
    adds a second, since it sees the sample's own noise as truth. The interval is therefore shifted
    up; for a well-calibrated model it can even lie above the estimate, and it never contains 0.

    Args:
        statistic: called as statistic(logits, target), returns one number.
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K−1.
        level: coverage, strictly between 0 and 1.
        n_resamples: number of resamples of size N, at least 1; their cost is that of as many calls.
        seed: decides the resamples, the same on every device.

    Returns:
        An `Interval` whose estimate is the statistic of the data as given.

    Raises:
        ValueError, TypeError: invalid logits or labels; level outside (0, 1); n_resamples < 1.

    Example:
        >>> logits = torch.tensor([[1.0, 0.0]]).repeat(100, 1)
        >>> target = torch.tensor([0] * 80 + [1] * 20)
        >>> bootstrap_interval(accuracy, logits, target, n_resamples=200)
        Interval(0.8000, 95 % in [0.7298, 0.8800])
    """
    check_logits_and_target(logits, target)
    check_real(level, "level", 0, 1, strict=True)
    check_integer(n_resamples, "n_resamples", 1)
    check_integer(seed, "seed", 0)
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(n_resamples, dtype=torch.float64)
    for index in range(n_resamples):
        rows = torch.randint(len(target), (len(target),), generator=generator).to(target.device)
        values[index] = float(statistic(logits[rows], target[rows]))
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values.quantile(tails).tolist()
    return Interval(low, float(statistic(logits, target)), high, level)


# ---------------------------------------------------------------------------- blocks of samples


def _blocks(logits: Tensor, dtype: torch.dtype | None = None) -> Iterator[tuple[Tensor, slice]]:
    """Yield z − z_max block by block, class first: (K, B), with the rows it stands for.

    Class first, because then every reduction over classes runs down whole vectors of samples.
    Half-precision logits are widened to float32, in which their differences are exact.
    """
    dtype = dtype or torch.promote_types(logits.dtype, torch.float32)
    n_samples, n_classes = logits.shape
    n_rows = max(1, _BLOCK_SIZE.get(logits.device.type, _BLOCK_SIZE_ACCELERATOR) // n_classes)
    for start in range(0, n_samples, n_rows):
        rows = slice(start, min(start + n_rows, n_samples))
        shifted = logits.new_empty(n_classes, rows.stop - rows.start, dtype=dtype)
        # Transposes by arithmetic: twice as fast as copy_, and exact.
        torch.sub(logits.detach()[rows].t().to(dtype), 0, out=shifted)
        shifted -= shifted.amax(0)
        yield shifted, rows


def _rest(shifted: Tensor) -> tuple[Tensor, Tensor]:
    """s = Σ_{j≠ŷ} e^{z_j − z_ŷ} of each sample, float64, so that c = 1/(1+s); and its whole part.

    The top class contributes e^0 = 1 exactly and every other class at most that: its part is the
    whole number, taken away before anything is added to it. What remains of whole numbers counts
    the classes that tie with the top, or differ from it by less than exp can tell.
    """
    weights = shifted.exp()
    whole = weights.floor()
    weights -= whole
    n_tied = whole.sum(0).sub_(1)
    return _sum_over_classes(weights).double().add_(n_tied), n_tied


def _sum_over_classes(terms: Tensor) -> Tensor:
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


def _at_label(values: Tensor, target: Tensor) -> Tensor:
    """values[y_i, i] of a (K, B) block."""
    return values.gather(0, target[None])[0]


def _is_correct(shifted: Tensor, target: Tensor, n_tied: Tensor) -> Tensor:
    """Whether the label is the lowest index that attains the maximum.

    The comparison is by value, since which index argmax reports among ties is each device's affair.
    """
    correct = _at_label(shifted, target) == 0
    if n_tied.any():
        doubtful = (correct & (n_tied > 0)).nonzero()[:, 0]
        n_classes = len(shifted)
        index = torch.arange(n_classes, device=shifted.device)[:, None]
        lowest = torch.where(shifted[:, doubtful] == 0, index, n_classes).amin(0)
        correct[doubtful] = lowest == target[doubtful]
    return correct


def _scores(logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (confidence, gap, correct) block by block; gap = 1{ŷ=y} − c without cancellation.

    The gap is float64, so that c and 1 − c add up to 1 also for float32 logits.
    """
    for shifted, rows in _blocks(logits):
        rest, n_tied = _rest(shifted)
        correct = _is_correct(shifted, target[rows], n_tied)
        confidence = 1 / (1 + rest)
        gap = torch.where(correct, rest, -1).mul_(confidence)
        yield confidence.to(shifted.dtype), gap, correct


def _scores_of_all(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Validate, then (confidence, gap, correct) of all N samples."""
    check_logits_and_target(logits, target)
    confidence, gap, correct = zip(*_scores(logits, target), strict=True)
    return torch.cat(confidence), torch.cat(gap), torch.cat(correct)


def _mean(blocks: Iterator[Tensor]) -> Tensor:
    """float64 mean over all samples of values that come in blocks."""
    total, count = 0.0, 0
    for block in blocks:
        total, count = total + block.sum(dtype=torch.float64), count + len(block)
    return total / count


def _squared_distance_to_label(shifted: Tensor, target: Tensor) -> Tensor:
    """Σ_k (p_k − 1{k=y})² of each sample of a block."""
    weights = shifted.exp()
    total = _sum_over_classes(weights.clone())
    weights.scatter_(0, target[None], 0)
    squares = _sum_over_classes(weights.square())
    return (_sum_over_classes(weights).square() + squares) / total.square()


# ---------------------------------------------------------------------------- bins


def _equal_width_edges(n_bins: int) -> Tensor:
    check_integer(n_bins, "n_bins", 1)
    # From Python's correctly rounded k / n_bins: linspace is not, nor is a GPU's division by a
    # scalar, which multiplies by the reciprocal.
    return torch.tensor([k / n_bins for k in range(n_bins + 1)], dtype=torch.float64)


def _equal_mass_edges(confidence: Tensor, n_bins: int) -> Tensor:
    check_integer(n_bins, "n_bins", 1)
    ranks = [-(-k * len(confidence) // n_bins) for k in range(1, n_bins)]
    inner = confidence.sort().values.double()[[rank - 1 for rank in ranks]]
    return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])


def _bin_index(confidence: Tensor, edges: Tensor) -> Tensor:
    """Index of the bin (edges[b], edges[b+1]] of each confidence; the outer bins are closed."""
    return torch.bucketize(confidence, edges[1:-1].to(confidence.dtype))


def _bin_totals(confidence: Tensor, gap: Tensor, correct: Tensor, edges: Tensor) -> Tensor:
    """(3, n_bins) float64: samples, right predictions and summed gap of each bin."""
    index = _bin_index(confidence, edges)
    totals = torch.zeros(3, len(edges) - 1, dtype=torch.float64, device=index.device)
    for total, values in zip(totals, (torch.ones_like(gap), correct, gap), strict=True):
        total.index_add_(0, index, values.double())
    return totals


def _equal_width_totals(logits: Tensor, target: Tensor, edges: Tensor) -> Tensor:
    edges = edges.to(logits.device)
    return sum(_bin_totals(*scores, edges) for scores in _scores(logits, target))


def _binned(logits: Tensor, target: Tensor, n_bins: int, binning: str) -> tuple[Tensor, Tensor]:
    """Validate, then (edges, totals) of all samples."""
    check_choice(binning, "binning", ("equal_width", "equal_mass"))
    if binning == "equal_width":
        check_logits_and_target(logits, target)
        edges = _equal_width_edges(n_bins).to(logits.device)
        return edges, _equal_width_totals(logits, target, edges)
    confidence, gap, correct = _scores_of_all(logits, target)
    edges = _equal_mass_edges(confidence, n_bins)
    return edges, _bin_totals(confidence, gap, correct, edges)


def _curve(edges: Tensor, totals: Tensor) -> ReliabilityCurve:
    count, n_correct, gap = totals
    return ReliabilityCurve(
        edges=edges,
        count=count.long(),
        confidence=(n_correct - gap) / count,
        accuracy=n_correct / count,
        gap=gap / count,
    )


def _expected_error(totals: Tensor) -> Tensor:
    count, _, gap = totals
    return gap.abs().sum() / count.sum()


def _maximum_error(totals: Tensor) -> Tensor:
    count, _, gap = totals
    return (gap.abs() / count.clamp(min=1)).amax()


# ---------------------------------------------------------------------------- kernels


def _discounted_sums(values: Tensor, discount: Tensor) -> Tensor:
    """T with T_0 = values_0 and T_i = values_i + discount_{i−1} T_{i−1}, for N values.

    A scan by doubling: after step k every T_i covers the last 2^k values, so log2(N) vector
    operations replace N steps, each addition pairs sums of equal length, and no discount is ever
    divided by.
    """
    total = values.clone()
    reach = torch.cat([discount.new_zeros(1), discount])  # product of the discounts covered so far
    step = 1
    while step < len(total):
        total[step:] += reach[step:] * total[:-step]
        reach[step:] = reach[step:] * reach[:-step]
        step *= 2
    return total


def _share_between_cells(cells: Tensor, position: Tensor, mass: Tensor) -> None:
    """Add each mass at a position in [0, 1] to the two nearest cell centres, by distance.

    Beyond the outermost centres the neighbour is the cell's own reflection, so it takes all.
    """
    place = (position * len(cells) - 0.5).clamp(0, len(cells) - 1)
    left = place.floor().clamp(max=len(cells) - 2)
    right_share = (place - left) * mass
    left = left.long()
    cells.index_add_(0, left, mass - right_share)
    cells.index_add_(0, left + 1, right_share)


def _smooth_fixed_point(cells: Tensor) -> Tensor:
    """The σ at which the smoothed cells have absolute sum σ, by bisection.

    Smoothing is the heat kernel of the grid, e^{σ²Δ/2} with Δ the second difference: positive, so
    the sum can only fall as σ grows, as for the Gaussian it approaches. Mirroring the cells makes
    the reflection at both ends, and a Fourier transform makes Δ diagonal.
    """
    n_cells = len(cells)
    spectrum = torch.fft.rfft(torch.cat([cells, cells.flip(0)]))
    angle = torch.arange(n_cells + 1, dtype=torch.float64, device=cells.device) * math.pi / n_cells
    eigenvalue = 2 * (angle.cos() - 1) * n_cells**2

    def error(sigma: float) -> Tensor:
        smoothed = torch.fft.irfft(spectrum * torch.exp(eigenvalue * sigma**2 / 2), n=2 * n_cells)
        return smoothed[:n_cells].abs().sum()

    low, high = 0.0, 1.0
    for _ in range(_N_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > middle else (low, middle)
    return error(high)
