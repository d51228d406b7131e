"""Calibration class by class: what an average over all samples can hide."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._blocks import at_label, blocks
from .._checks import check_logits_and_target
from .._devices import where_float64_is
from .binned import bin_index, equal_width_edges
from .intervals import wilson_interval
from .noise import draw_right
from .scores import check_confidence_and_correct, predicted_class, scores_of_all

_N_DRAWS = 200  # of calibrated networks, for the number of classes that stand out by chance


@dataclass(frozen=True, eq=False)
class ClassOverConfidence:
    """Over-confidence of each predicted class; what `class_over_confidence` returns.

    Attributes:
        count: (K,) int64, samples predicted as each class.
        over_confidence: (K,) float64, mean confidence - accuracy among them; NaN where there are
            none.
        low, high: (K,) float64, the ends of its 95 % interval, by Wilson's for the accuracy.
        expected_by_chance: how many classes' intervals leave out 0 on average where the network is
            calibrated and has these confidences.
        at_most_by_chance: how many do in 95 % of such networks at most.
    """

    count: Tensor
    over_confidence: Tensor
    low: Tensor
    high: Tensor
    expected_by_chance: float
    at_most_by_chance: int

    @property
    def outside(self) -> Tensor:
        """Classes (int64) whose interval leaves out 0, largest over- or under-confidence first."""
        found = ((self.low > 0) | (self.high < 0)).nonzero()[:, 0]
        return found[self.over_confidence[found].abs().argsort(descending=True)]

    def __repr__(self) -> str:
        lines = [
            f"ClassOverConfidence({len(self.outside)} of {int((self.count > 0).sum())} classes "
            f"leave out 0; {self.expected_by_chance:.1f} by chance, "
            f"{self.at_most_by_chance} at most)"
        ]
        lines += [
            f"  class {k:4}: {self.over_confidence[k]:+.4f} [{self.low[k]:+.4f}, "
            f"{self.high[k]:+.4f}], {int(self.count[k])} samples"
            for k in self.outside[:10].tolist()
        ]
        return "\n".join(lines)


@where_float64_is
def class_over_confidence(logits: Tensor, target: Tensor, seed: int = 0) -> ClassOverConfidence:
    """Mean confidence - accuracy of the samples predicted as each class, with intervals.

    Errors of opposite sign in two classes cancel in the average and often in the ECE. With many
    classes some intervals leave out 0 by chance; how many is drawn from calibrated networks with
    the same confidences, so that a count can be told from noise.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.
        seed: decides the draws.

    Returns:
        A `ClassOverConfidence`, on the CPU.

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0], [2.0, 0.0]]).repeat(50, 1)
        >>> class_over_confidence(logits, torch.tensor([1, 1]).repeat(50))
        ClassOverConfidence(2 of 2 classes leave out 0; 0.1 by chance, 1 at most)
          class    0: +0.8808 [+0.8094, +0.8808], 50 samples
          class    1: -0.1192 [-0.1192, -0.0479], 50 samples
    """
    confidence, _, correct = scores_of_all(logits, target)
    return over_confidence_by_class(
        confidence, correct, predicted_class(logits), logits.shape[1], seed
    )


@where_float64_is
def over_confidence_by_class(
    confidence: Tensor, correct: Tensor, predicted: Tensor, n_classes: int, seed: int = 0
) -> ClassOverConfidence:
    """`class_over_confidence` of what has been measured already.

    Args:
        confidence: (N,) in [0, 1], floating.
        correct: (N,) bool.
        predicted: (N,) int64 in 0..n_classes-1, the predicted classes.
        n_classes: K.
        seed: decides the draws.
    """
    check_confidence_and_correct(confidence, correct)
    confidence, correct, predicted = (x.cpu() for x in (confidence, correct, predicted))
    confidence = confidence.double()
    count = torch.bincount(predicted, minlength=n_classes)
    none = torch.zeros(n_classes, dtype=torch.float64, device="cpu")
    total = none.index_add_(0, predicted, confidence)
    n_right = torch.bincount(predicted[correct], minlength=n_classes)
    low, high = _ends(count, total, n_right)

    drawn = draw_right(confidence, predicted, n_classes, _N_DRAWS, seed)
    drawn_low, drawn_high = _ends(count, total, drawn)
    n_outside = ((drawn_low > 0) | (drawn_high < 0)).sum(1).double()
    return ClassOverConfidence(
        count=count,
        over_confidence=(total - n_right) / count,
        low=low,
        high=high,
        expected_by_chance=float(n_outside.mean()),
        at_most_by_chance=int(n_outside.quantile(0.95, interpolation="higher")),
    )


def _ends(count: Tensor, total: Tensor, n_right: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of confidence - accuracy per class, NaN where there is no sample."""
    trials = torch.where(count > 0, count, 1).double()
    low, high = torch.from_numpy(wilson_interval(n_right.double().numpy(), trials.numpy()))
    confidence = total / count
    return confidence - high, confidence - low


@where_float64_is
def classwise_calibration_error(logits: Tensor, target: Tensor, n_bins: int = 15) -> Tensor:
    """Class-wise ECE: the binned error of every class's probability, averaged over classes.

    (1/K) Σ_k Σ_b (n_bk/N) |frequency of y = k - mean p_k| over the samples whose p_k falls in bin b
    (Kull et al. 2019, arXiv 1910.12656; Nixon et al. 2019, arXiv 1904.01685). It judges all
    probabilities, not only the largest. With many classes most of them are near 0 and right, so the
    average is small; compare it only between models of the same K.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.
        n_bins: M equal-width bins, at least 1.

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit;
            n_bins < 1.

    Example:
        >>> classwise_calibration_error(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
        tensor(0.2500, dtype=torch.float64)
    """
    check_logits_and_target(logits, target)
    edges = equal_width_edges(n_bins).to(logits.device)
    n_classes = logits.shape[1]
    excess = torch.zeros(n_classes * n_bins, dtype=torch.float64, device=logits.device)
    for shifted, rows in blocks(logits):
        probability = shifted.exp_()
        probability /= probability.sum(0)
        label = target[rows]
        index = label * n_bins + bin_index(at_label(probability, label), edges)
        excess.index_add_(0, index, -torch.ones_like(index, dtype=torch.float64))
        # Few probabilities of a sample lie above the first bin: only they are sorted into bins.
        classes, columns = (probability > edges[1].to(probability.dtype)).nonzero(as_tuple=True)
        values = probability[classes, columns]
        index = classes * n_bins + bin_index(values, edges)
        excess.index_add_(0, index, values.double())
        probability[classes, columns] = 0
        excess[::n_bins] += probability.sum(1, dtype=torch.float64)
    return excess.abs().sum() / (n_classes * len(logits))


@where_float64_is
def top_label_calibration_error(logits: Tensor, target: Tensor, n_bins: int = 15) -> Tensor:
    """Top-label ECE: bins of confidence within each predicted class, weighted by their samples.

    Σ_k Σ_b (n_kb/N) |accuracy - mean confidence| over the samples predicted as k whose confidence
    falls in bin b (Gupta and Ramdas 2022, arXiv 2107.08353). At least the ECE, which lets classes
    cancel; its bias is larger, for there are K times as many bins.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.
        n_bins: M equal-width bins, at least 1.

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit;
            n_bins < 1.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
        >>> top_label_calibration_error(logits, torch.tensor([1, 1]))
        tensor(0.5000, dtype=torch.float64)
    """
    confidence, residual, _ = scores_of_all(logits, target)
    edges = equal_width_edges(n_bins).to(logits.device)
    index = predicted_class(logits) * n_bins + bin_index(confidence, edges)
    excess = torch.zeros(logits.shape[1] * n_bins, dtype=torch.float64, device=logits.device)
    return excess.index_add_(0, index, residual).abs().sum() / len(logits)
