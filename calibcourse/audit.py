"""An audit of any classifier from a file of its logits: how far off, in which direction, how sure.

`calibcourse audit FILE` prints it. The file is an `.npz` with `logits` (N, K) and `target` (N,), as
`numpy.savez(FILE, logits=..., target=...)` writes it. It may come from a stranger: its size, shapes
and dtypes are checked, and nothing in it is executed.
"""

import os
import warnings
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from . import plots
from ._checks import check_integer, check_logits_and_target
from ._files import open_regular
from .margins import margin_moment_share, true_margin
from .metrics import (
    Interval,
    accuracy,
    bootstrap_interval,
    confidence_and_correct,
    expected_calibration_error,
    kernel_calibration_error,
    negative_log_likelihood,
    reliability_curve,
    smooth_calibration_error,
)
from .posthoc import TemperatureScaling

MAX_BYTES = 4 * 2**30  # of an array; a million samples of a thousand classes fit
_KINDS = {
    "logits": ("f", 2, "floating of at most 64 bits, shape (N, K)"),
    "target": ("iu", 1, "integer, shape (N,)"),
}


@dataclass(frozen=True)
class Audit:
    """What `audit` found.

    Attributes:
        n_samples, n_classes: N, K.
        accuracy, over_confidence: with 95 % bootstrap intervals; over-confidence is mean confidence
            - accuracy, negative where the model is not sure enough.
        ece: 15 bins of equal width, with the bootstrap's interval (see `bootstrap_interval` for
            what that does not promise).
        ece_by_chance: the 95 % quantile of the ECE of a calibrated model with the same
            probabilities and as many samples.
        kce, smooth_ece: kernel and smooth calibration error, which need no bins.
        negative_log_likelihood: nats per sample.
        temperature: T > 0 fitted on all samples; above 1 where the model is too sure.
        ece_rescaled: ECE with a temperature, each half of the samples read with that of the other.
        smallest_margin: γ = min m, logit units; below 0 where a prediction is wrong.
        worst_percent_of_q: share of Q = mean exp(-m) held by the 1 % of smallest margins m.
        looks_like_probabilities: whether every row is non-negative and sums to 1.
    """

    n_samples: int
    n_classes: int
    accuracy: Interval
    over_confidence: Interval
    ece: Interval
    ece_by_chance: float
    kce: float
    smooth_ece: float
    negative_log_likelihood: float
    temperature: float
    ece_rescaled: float
    smallest_margin: float
    worst_percent_of_q: float
    looks_like_probabilities: bool

    @property
    def gap(self) -> Interval:
        """Deprecated: `over_confidence`."""
        warnings.warn("Audit.gap is now over_confidence", DeprecationWarning, stacklevel=2)
        return self.over_confidence

    def __repr__(self) -> str:
        values = {
            "accuracy": _show(self.accuracy),
            "mean confidence - accuracy": _show(self.over_confidence),
            "ECE, 15 bins": _show(self.ece),
            "ECE of a calibrated model": f"up to {self.ece_by_chance:.4f} by chance (95 %)",
            "KCE, smECE": f"{self.kce:.4f}, {self.smooth_ece:.4f}",
            "negative log-likelihood": f"{self.negative_log_likelihood:.4f} nats",
            "temperature": f"{self.temperature:.3g}; ECE with it {self.ece_rescaled:.4f}",
            "smallest margin": f"{self.smallest_margin:.4g}",
            "share of Q": f"{self.worst_percent_of_q:.0%} in the worst 1 % of the samples",
        }
        lines = [f"{self.n_samples:,} samples, {self.n_classes} classes, 95 % intervals"]
        lines += [f"  {name:27} {value}" for name, value in values.items()]
        return "\n".join([*lines, *(f"- {finding}" for finding in self.findings())])

    def findings(self) -> list[str]:
        """The audit in plain sentences, what matters most first."""
        found = []
        if self.looks_like_probabilities:
            found.append(
                "Every row is non-negative and sums to 1: these look like probabilities. If so, "
                "give their logarithms; what follows took them as logits."
            )
        found.append(self._on_calibration())
        found.append(self._on_direction())
        if self.ece.estimate > self.ece_by_chance:
            found.append(self._on_temperature())
        if self.worst_percent_of_q > 0.5:
            found.append(
                "The few worst samples hold most of Q: bounds through Q speak of them, "
                "not of the typical sample."
            )
        return found

    def _on_calibration(self) -> str:
        if self.ece.estimate > self.ece_by_chance:
            return "Miscalibrated: chance alone seldom gives a calibrated model so large an ECE."
        return (
            f"No miscalibration seen: with {self.n_samples:,} samples a calibrated model often "
            "shows as large an ECE. More samples could see a smaller one."
        )

    def _on_direction(self) -> str:
        if self.over_confidence.low > 0:
            text = "Too sure on the whole"
        elif self.over_confidence.high < 0:
            text = "Not sure enough on the whole"
        else:
            text = "Neither too sure nor too unsure on average"
        if self.ece.estimate > max(self.ece_by_chance, 2 * abs(self.over_confidence.estimate)):
            text += "; but errors of opposite sign cancel in that average: look at the diagram"
        return f"{text}."

    def _on_temperature(self) -> str:
        if self.ece_rescaled <= self.ece_by_chance:
            return f"Dividing the logits by {self.temperature:.3g} repairs what ECE can see."
        if self.ece_rescaled < self.ece.estimate / 2:
            return f"Dividing the logits by {self.temperature:.3g} halves the ECE or better."
        return "One temperature does not repair it: the error is not one of scale alone."


def read_logits(path: str | os.PathLike) -> tuple[Tensor, Tensor]:
    """Read logits and labels from an `.npz` that may come from a stranger.

    Sizes are checked before anything is unpacked, and nothing in the file is executed.

    Args:
        path: a regular file with `logits` (N, K), floating, and `target` (N,), integer.

    Returns:
        Logits (N, K), of the file's precision, and labels (N,), int64.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is no regular file, or cannot be read.
        ValueError: no `.npz`, damaged, an array missing, too large, of another dtype or shape,
            logits not finite, a label out of range; the file is named.

    Example:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
        >>> np.savez(path, logits=np.eye(3), target=np.array([0, 1, 2]))
        >>> [tuple(array.shape) for array in read_logits(path)]
        [(3, 3), (3,)]
    """
    with open_regular(path) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                logits, target = (torch.from_numpy(_read_array(archive, name)) for name in _KINDS)
            check_logits_and_target(logits, target)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:  # a damaged archive raises errors of many types
            raise ValueError(f"{path} must be a sound .npz file: {error}") from error
    return logits, target


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array, after the archive's directory has promised that it is small enough.

    zipfile hands out no more bytes than the directory says. If an array's own header asks for more,
    numpy reserves memory that it never fills: its first read comes short, and it raises.
    """
    kinds, n_axes, wanted = _KINDS[name]
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise ValueError(
            f"{name} is missing; write the file by numpy.savez(path, logits=..., target=...)"
        ) from None
    if member.file_size > MAX_BYTES:
        raise ValueError(f"{name} must take at most {MAX_BYTES} bytes, got {member.file_size}")
    try:
        with archive.open(member) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, MemoryError) as error:
        raise ValueError(f"{name} must be a sound .npy array: {error}") from error
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8 or array.ndim != n_axes:
        raise ValueError(f"{name} must be {wanted}, got {array.dtype}, shape {array.shape}")
    # torch wants the machine's byte order, and no unsigned labels.
    if name == "target":
        if array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{name} must fit int64, got {array.max()}")
        return array.astype(np.int64)
    return array.astype(array.dtype.newbyteorder("="))


def audit(logits: Tensor, target: Tensor, n_resamples: int = 200, seed: int = 0) -> Audit:
    """Measure the calibration of a model from its logits, with intervals and a chance level.

    The chance level draws labels from the model's own probabilities: a calibrated model with these
    probabilities, of which any ECE is chance (consistency resampling, Bröcker and Smith 2007).

    Args:
        logits: (N, K), N >= 2, any floating dtype; of samples that the model was not trained on.
        target: (N,) int64 labels.
        n_resamples: for each interval and for the chance level, at least 1.
        seed: decides the resamples, the draws, and which samples make a half.

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
    check_integer(n_resamples, "n_resamples", 1)
    if len(logits) < 2:
        raise ValueError("logits must hold at least 2 samples, got 1")

    def interval(statistic) -> Interval:
        return bootstrap_interval(statistic, logits, target, 0.95, n_resamples, seed)

    generator = torch.Generator(logits.device).manual_seed(seed)
    margin = true_margin(logits.double(), target)
    rows = logits.double()
    sums_to_one = (rows.sum(1) - 1).abs().max() < 1e-3
    return Audit(
        n_samples=len(logits),
        n_classes=logits.shape[1],
        accuracy=interval(accuracy),
        over_confidence=interval(_over_confidence),
        ece=interval(expected_calibration_error),
        ece_by_chance=_ece_by_chance(logits, n_resamples, generator),
        kce=float(kernel_calibration_error(logits, target)),
        smooth_ece=float(smooth_calibration_error(logits, target)),
        negative_log_likelihood=float(negative_log_likelihood(logits, target)),
        temperature=TemperatureScaling().fit(logits, target).temperature,
        ece_rescaled=_ece_rescaled(logits, target, generator),
        smallest_margin=float(margin.min()),
        worst_percent_of_q=float(margin_moment_share(margin)),
        looks_like_probabilities=bool(sums_to_one and (rows >= 0).all()),
    )


def audit_figure(logits: Tensor, target: Tensor) -> Figure:
    """Reliability diagram and true margins, side by side.

    Args:
        logits: (N, K), any floating dtype.
        target: (N,) int64 labels.
    """
    fig, (left, right) = plots.figure(2)
    plots.reliability_diagram(reliability_curve(logits, target), ax=left)
    plots.margin_histogram({f"{len(target):,} samples": true_margin(logits, target)}, ax=right)
    return fig


def _show(interval: Interval) -> str:
    return f"{interval.estimate:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _over_confidence(logits: Tensor, target: Tensor) -> Tensor:
    confidence, correct = confidence_and_correct(logits, target)
    return (confidence.double() - correct.double()).mean()


def _ece_by_chance(logits: Tensor, n_draws: int, generator: torch.Generator) -> float:
    probabilities = logits.double().softmax(1)
    errors = torch.empty(n_draws, dtype=torch.float64)
    for index in range(n_draws):
        drawn = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
        errors[index] = float(expected_calibration_error(logits, drawn))
    return float(errors.quantile(0.95))


def _ece_rescaled(logits: Tensor, target: Tensor, generator: torch.Generator) -> float:
    """ECE of all samples, each half divided by the temperature fitted on the other half."""
    order = torch.randperm(len(logits), generator=generator, device=logits.device)
    halves = order.tensor_split(2)
    scaled = [
        TemperatureScaling().fit(logits[other], target[other]).transform(logits[half])
        for half, other in zip(halves, reversed(halves), strict=True)
    ]
    return float(expected_calibration_error(torch.cat(scaled), target[torch.cat(halves)]))
