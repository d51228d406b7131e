"""What an audit measures: one reading of the logits, then numbers per sample alone."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .._checks import check_integer, check_logits_and_target, check_seed
from .._devices import where_float64_is
from ..margins import margin_moment_share, true_margin
from ..metrics import (
    BrierDecomposition,
    ClassOverConfidence,
    Interval,
    NoiseFloor,
    brier_decomposition,
    classwise_calibration_error,
    confidence_and_correct,
    debiased_ece,
    ece_of_confidence,
    kernel_calibration_error,
    negative_log_likelihood,
    noise_floor,
    over_confidence_by_class,
    predicted_class,
    smooth_calibration_error,
    top_label_calibration_error,
)
from ..metrics.intervals import percentile_ends, resampled
from ..posthoc import TemperatureScaling
from . import report

_ROWS = 1 << 20  # logits that are worked on at a time
_LONG = 1 << 23  # logits from which on a bar shows the progress


@dataclass(frozen=True, eq=False)
class Audit:
    """What `audit` found; its repr is a report, `findings()` its plain sentences.

    Attributes:
        n_samples, n_classes: N, K.
        accuracy, over_confidence: with 95 % bootstrap intervals; over-confidence is mean confidence
            - accuracy, negative where the model is not sure enough.
        chance_accuracy: of predictions and labels dealt out anew, Σ_k share predicted · share true.
        ece: 15 bins of equal width, with the bootstrap's interval (see `bootstrap_interval` for
            what that does not promise).
        floor: the ECE of a calibrated model with the same confidences, by chance.
        debiased_ece: ECE less most of what chance added.
        classwise_ece, top_label_ece: of all probabilities; of each predicted class by itself.
        kce, smooth_ece: kernel and smooth calibration error, which need no bins.
        negative_log_likelihood: nats per sample.
        brier: score of the confidence: reliability, resolution, uncertainty.
        classes: over-confidence of each predicted class.
        temperature: T > 0 fitted on all samples; above 1 where the model is too sure.
        capped: no T is best, and `temperature` is where the search ended.
        ece_rescaled: ECE with a temperature, each half of the samples read with that of the other.
        rescaled_by_chance: the upper end of the noise floor with those rescaled confidences.
        repaired: 1 - ece_rescaled/ece with its interval over samples, T held fixed; as for the ECE
            (see `bootstrap_interval`) a measure of spread, which may leave the estimate out.
        smallest_margin: γ = min m, logit units; below 0 where a prediction is wrong.
        worst_percent_of_q: share of Q = mean exp(-m) held by the 1 % of smallest margins m.
    """

    n_samples: int
    n_classes: int
    accuracy: Interval
    over_confidence: Interval
    chance_accuracy: float
    ece: Interval
    floor: NoiseFloor
    debiased_ece: float
    classwise_ece: float
    top_label_ece: float
    kce: float
    smooth_ece: float
    negative_log_likelihood: float
    brier: BrierDecomposition
    classes: ClassOverConfidence
    temperature: float
    capped: bool
    ece_rescaled: float
    rescaled_by_chance: float
    repaired: Interval
    smallest_margin: float
    worst_percent_of_q: float

    @property
    def gap(self) -> Interval:
        """Deprecated: `over_confidence`."""
        warnings.warn("Audit.gap is now over_confidence", DeprecationWarning, stacklevel=2)
        return self.over_confidence

    @property
    def near_chance(self) -> bool:
        """Whether labels in another order would give as good an accuracy.

        Of a model that always predicts one class that is true of any order, and says nothing.
        """
        several = int((self.classes.count > 0).sum()) > 1
        return several and self.accuracy.low <= self.chance_accuracy

    @property
    def miscalibrated(self) -> bool:
        """Whether the ECE lies above the band of a calibrated model."""
        return self.ece.estimate > self.floor.high

    @property
    def uneven(self) -> bool:
        """Whether more classes are too sure, or not sure enough, than chance explains."""
        return len(self.classes.outside) > self.classes.at_most_by_chance

    def findings(self) -> list[str]:
        """The audit in plain sentences, what matters most first."""
        return report.findings(self)

    def to_dict(self) -> dict:
        """Every number as plain data, for JSON; NaN and infinity become None."""
        return report.to_dict(self)

    def __repr__(self) -> str:
        return report.text(self)


@where_float64_is
def audit(
    logits: Tensor, target: Tensor, n_resamples: int = 200, seed: int = 0, progress: bool = False
) -> Audit:
    """Measure the calibration of a model from its logits, with intervals and a noise floor.

    Args:
        logits: (N, K), N >= 2, any floating dtype; of samples that the model was not trained on.
        target: (N,) int64 labels.
        n_resamples: for each interval and for the noise floor, at least 1.
        seed: decides the resamples, the draws, and which samples make a half.
        progress: show a bar where there are many logits.

    Returns:
        An `Audit`, whose repr is a report and whose `findings()` are plain sentences.

    Raises:
        ValueError, TypeError: invalid logits or labels, fewer than two samples, n_resamples < 1.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]]).repeat(100, 1)  # 98 % sure
        >>> target = torch.tensor([0, 0, 0, 0, 1]).repeat(20)  # 80 % right
        >>> audit(logits, target, n_resamples=50).findings()[0][:14]
        'Miscalibrated:'
    """
    check_logits_and_target(logits, target)
    n_resamples = check_integer(n_resamples, "n_resamples", 1)
    seed = check_seed(seed)
    if len(logits) < 2:
        raise ValueError("logits must hold at least 2 samples, got 1")
    hidden = not progress or logits.numel() < _LONG
    with tqdm(total=8, disable=hidden, desc="audit", unit="part") as bar:
        return _measure(logits, target, n_resamples, seed, bar.update)


def _measure(
    logits: Tensor, target: Tensor, n_resamples: int, seed: int, done: Callable[[], object]
) -> Audit:
    confidence, correct = confidence_and_correct(logits, target)
    predicted = predicted_class(logits)
    margin = torch.cat([true_margin(logits[r].double(), target[r]) for r in _rows(logits)])
    done()
    scaling = TemperatureScaling().fit(logits, target)
    done()
    rescaled = _rescaled_confidence(logits, target, seed)
    done()
    floor = noise_floor(confidence, n_draws=n_resamples, seed=seed)
    classes = over_confidence_by_class(confidence, correct, predicted, logits.shape[1], seed)
    done()
    over_all = (len(target), n_resamples, seed)
    accuracy = _interval(lambda c, r, _: r.double().mean(), confidence, correct, rescaled, over_all)
    over_confidence = _interval(
        lambda c, r, _: (c.double() - r.double()).mean(), confidence, correct, rescaled, over_all
    )
    ece = _interval(
        lambda c, r, _: ece_of_confidence(c, r), confidence, correct, rescaled, over_all
    )
    repaired = _interval(_share_repaired, confidence, correct, rescaled, over_all)
    done()
    kce, smooth = kernel_calibration_error(logits, target), smooth_calibration_error(logits, target)
    done()
    classwise = classwise_calibration_error(logits, target)
    top_label = top_label_calibration_error(logits, target)
    done()
    share = [torch.bincount(x, minlength=logits.shape[1]).double() for x in (predicted, target)]
    found = Audit(
        n_samples=len(logits),
        n_classes=logits.shape[1],
        accuracy=accuracy,
        over_confidence=over_confidence,
        chance_accuracy=float(share[0] @ share[1]) / len(logits) ** 2,
        ece=ece,
        floor=floor,
        debiased_ece=float(debiased_ece(confidence, correct)),
        classwise_ece=float(classwise),
        top_label_ece=float(top_label),
        kce=float(kce),
        smooth_ece=float(smooth),
        negative_log_likelihood=float(negative_log_likelihood(logits, target)),
        brier=brier_decomposition(confidence, correct),
        classes=classes,
        temperature=scaling.temperature,
        capped=scaling.capped,
        ece_rescaled=float(ece_of_confidence(rescaled, correct)),
        rescaled_by_chance=noise_floor(rescaled, n_draws=n_resamples, seed=seed).high,
        repaired=repaired,
        smallest_margin=float(margin.min()),
        worst_percent_of_q=float(margin_moment_share(margin)),
    )
    done()
    return found


def _rows(logits: Tensor) -> Iterator[slice]:
    step = max(1, _ROWS // logits.shape[1])
    return (slice(start, start + step) for start in range(0, len(logits), step))


def _share_repaired(confidence: Tensor, correct: Tensor, rescaled: Tensor) -> Tensor:
    before = ece_of_confidence(confidence, correct)
    return 1 - ece_of_confidence(rescaled, correct) / before if before > 0 else before.new_zeros(())


def _interval(
    statistic: Callable[[Tensor, Tensor, Tensor], Tensor],
    confidence: Tensor,
    correct: Tensor,
    rescaled: Tensor,
    over_all: tuple[int, int, int],
) -> Interval:
    """Percentile bootstrap, as `bootstrap_interval`, of what three numbers per sample decide."""
    columns = confidence, correct, rescaled
    values = [
        float(statistic(*(column[rows.to(column.device)] for column in columns)))
        for rows in resampled(*over_all)
    ]
    low, high = percentile_ends(torch.tensor(values, dtype=torch.float64, device="cpu"), 0.95)
    return Interval(low, float(statistic(*columns)), high, 0.95)


def _rescaled_confidence(logits: Tensor, target: Tensor, seed: int) -> Tensor:
    """Confidences, each half divided by the temperature fitted on the other half."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(logits), generator=generator, device="cpu")
    halves = order.to(logits.device).tensor_split(2)
    confidence = torch.full((len(logits),), math.nan, dtype=torch.float64, device=logits.device)
    for half, other in (halves, halves[::-1]):
        scaling = TemperatureScaling().fit(logits[other], target[other])
        for rows in half.split(max(1, _ROWS // logits.shape[1])):
            scaled = scaling.transform(logits[rows].double())
            confidence[rows] = confidence_and_correct(scaled, target[rows])[0]
    return confidence
