"""Two models audited on the same samples: paired differences, and where they tie."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..metrics import (
    Comparison,
    compare_models,
    confidence_and_correct,
    debiased_ece,
    ece_of_confidence,
    noise_floor,
)


@dataclass(frozen=True)
class AuditComparison:
    """First less second, quantity by quantity; what `compare_audits` returns.

    Attributes:
        differences: quantity -> `Comparison` over the samples.
        both_in_noise: both models' ECE lies in the band of a calibrated model, so that no
            difference of calibration can be claimed.
    """

    differences: dict[str, Comparison]
    both_in_noise: bool

    @property
    def differ(self) -> bool:
        """Whether any quantity does not tie."""
        return any(self.verdict(name) != "tie" for name in self.differences)

    def verdict(self, name: str) -> str:
        """The verdict on one quantity: "tie", "first is larger" or "second is larger"."""
        if name == "debiased ECE" and self.both_in_noise:
            return "tie"
        return self.differences[name].verdict

    def __repr__(self) -> str:
        n_units = next(iter(self.differences.values())).n_units
        lines = [f"first - second on the same {n_units:,} samples, 95 % intervals"]
        for name, found in self.differences.items():
            d = found.difference
            values = f"{d.estimate:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
            lines.append(f"  {name:27} {values}  {self.verdict(name)}")
        if self.both_in_noise:
            lines.append("- Both ECEs lie in the band of a calibrated model: a tie, at this size.")
        return "\n".join(lines)


def compare_audits(
    first: Tensor, second: Tensor, target: Tensor, n_resamples: int = 200, seed: int = 0
) -> AuditComparison:
    """Compare two models on the same samples.

    Args:
        first, second: (N, K) logits of each model; K may differ.
        target: (N,) int64 labels, of both.
        n_resamples: for each interval and for the noise floors, at least 2.
        seed: decides the resamples and the noise floors.

    Returns:
        An `AuditComparison` of accuracy, over-confidence, debiased ECE and log-likelihood.

    Raises:
        ValueError, TypeError: invalid logits or labels; n_resamples < 2.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]]).repeat(100, 1)
        >>> target = torch.tensor([0, 0, 0, 0, 1]).repeat(20)
        >>> found = compare_audits(logits, logits / 3, target)
        >>> found.verdict("debiased ECE"), found.verdict("accuracy")
        ('first is larger', 'tie')
    """
    tables = [_per_sample(logits, target) for logits in (first, second)]
    statistics = {
        "accuracy": lambda t, _: t[:, 1].mean(),
        "confidence - accuracy": lambda t, _: (t[:, 0] - t[:, 1]).mean(),
        "debiased ECE": lambda t, _: debiased_ece(t[:, 0].contiguous(), t[:, 1] > 0),
        "negative log-likelihood": lambda t, _: t[:, 2].mean(),
    }
    in_noise = []
    for table in tables:
        confidence = table[:, 0].contiguous()
        ece = float(ece_of_confidence(confidence, table[:, 1] > 0))
        in_noise.append(ece <= noise_floor(confidence, n_draws=n_resamples, seed=seed).high)
    return AuditComparison(
        {
            name: compare_models(statistic, *tables, target, 0.95, n_resamples, seed)
            for name, statistic in statistics.items()
        },
        all(in_noise),
    )


def _per_sample(logits: Tensor, target: Tensor) -> Tensor:
    """(N, 3) float64: confidence, right or wrong, -log p_y."""
    confidence, correct = confidence_and_correct(logits, target)
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return torch.stack([confidence.double(), correct.double(), loss.double()], 1)
