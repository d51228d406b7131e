"""An audit in words: the lines of the report, the findings, and plain data for machines."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch

from ..metrics import Interval

if TYPE_CHECKING:
    from .measure import Audit


def rows(audit: "Audit") -> dict[str, str]:
    """What the report's table holds: quantity -> value with its interval."""
    floor, brier, classes = audit.floor, audit.brier, audit.classes
    capped = ", capped: no temperature is best" * audit.capped
    return {
        "accuracy": f"{show(audit.accuracy)}; by chance {audit.chance_accuracy:.4f}",
        "mean confidence - accuracy": show(audit.over_confidence),
        "ECE, 15 bins": f"{show(audit.ece)}; debiased {audit.debiased_ece:.4f}",
        "ECE of a calibrated model": (
            f"{floor.mean:.4f} [{floor.low:.4f}, {floor.high:.4f}] by chance"
        ),
        "top-label, class-wise ECE": f"{audit.top_label_ece:.4f}, {audit.classwise_ece:.4f}",
        "KCE, smECE": f"{audit.kce:.4f}, {audit.smooth_ece:.4f}",
        "negative log-likelihood": f"{audit.negative_log_likelihood:.4f} nats",
        "Brier score of confidence": (
            f"{brier.score:.4f} = reliability {brier.reliability:.4f} - resolution "
            f"{brier.resolution:.4f} + uncertainty {brier.uncertainty:.4f} "
            f"{brier.within_bins:+.4f} within bins"
        ),
        "classes off": (
            f"{len(classes.outside)} of {int((classes.count > 0).sum())} predicted; by chance "
            f"{classes.expected_by_chance:.1f}, at most {classes.at_most_by_chance}"
        ),
        "temperature": f"{audit.temperature:.3g}{capped}",
        "ECE with a temperature": (
            f"{audit.ece_rescaled:.4f}; repaired {_percent(audit.repaired)} of the ECE"
        ),
        "smallest margin": f"{audit.smallest_margin:.4g}",
        "share of Q": f"{audit.worst_percent_of_q:.0%} in the worst 1 % of the samples",
    }


def text(audit: "Audit") -> str:
    """The whole report as plain text."""
    lines = [f"{audit.n_samples:,} samples, {audit.n_classes} classes, 95 % intervals"]
    lines += [f"  {name:27} {value}" for name, value in rows(audit).items()]
    return "\n".join([*lines, *(f"- {finding}" for finding in findings(audit))])


def findings(audit: "Audit") -> list[str]:
    """The audit in plain sentences, what matters most first."""
    if audit.near_chance:
        return [
            f"Accuracy {audit.accuracy.estimate:.3f} is no better than labels dealt out at random "
            f"({audit.chance_accuracy:.3f}): are labels and rows in one order, and are classes "
            "numbered alike? Until that is settled the other numbers say nothing of the model."
        ]
    found = [_on_calibration(audit), _on_direction(audit)]
    if audit.miscalibrated:
        found.append(_on_temperature(audit))
    if audit.uneven:
        found.append(_on_classes(audit))
    if audit.brier.resolution < 0.01 * audit.brier.uncertainty:
        found.append(
            "The confidence hardly tells right from wrong predictions (resolution near 0): "
            "calibrated or not, it is of little use to choose by."
        )
    if audit.worst_percent_of_q > 0.5:
        found.append(
            "The few worst samples hold most of Q: bounds through Q speak of them, "
            "not of the typical sample."
        )
    return found


def _on_calibration(audit: "Audit") -> str:
    if audit.miscalibrated:
        return "Miscalibrated: chance alone seldom gives a calibrated model so large an ECE."
    where = " in the average over classes" if audit.uneven else ""
    return (
        f"No miscalibration seen{where}: with {audit.n_samples:,} samples a calibrated model often "
        "shows as large an ECE. More samples could see a smaller one."
    )


def _on_direction(audit: "Audit") -> str:
    if audit.over_confidence.low > 0:
        said = "Too sure on the whole"
    elif audit.over_confidence.high < 0:
        said = "Not sure enough on the whole"
    else:
        said = "Neither too sure nor too unsure on average"
    if audit.ece.estimate > max(audit.floor.high, 2 * abs(audit.over_confidence.estimate)):
        said += "; but errors of opposite sign cancel in that average: look at the diagram"
    return f"{said}."


def _on_temperature(audit: "Audit") -> str:
    if audit.capped:
        return (
            "No temperature is best: every label has the largest logit, or the labels' logits are "
            "below average on the whole. The number given is where the search ended, no repair."
        )
    share = f"{_percent(audit.repaired)} of the ECE"
    if audit.ece_rescaled <= audit.rescaled_by_chance:
        return f"Dividing the logits by {audit.temperature:.3g} repairs what ECE can see: {share}."
    if audit.ece_rescaled <= audit.ece.estimate / 2:
        return f"Dividing the logits by {audit.temperature:.3g} halves the ECE or better: {share}."
    return f"One temperature does not repair it ({share}): the error is not one of scale alone."


def _on_classes(audit: "Audit") -> str:
    classes = audit.classes
    worst = ", ".join(
        f"{k} ({classes.over_confidence[k]:+.3f} [{classes.low[k]:+.3f}, {classes.high[k]:+.3f}])"
        for k in classes.outside[:3].tolist()
    )
    return (
        f"{len(classes.outside)} classes are off by more than chance explains "
        f"(at most {classes.at_most_by_chance}); most of all: {worst}."
    )


def to_dict(audit: "Audit") -> dict[str, Any]:
    """Every number as plain data; the noise floor without its draws."""
    plain = {field.name: _plain(getattr(audit, field.name)) for field in dataclasses.fields(audit)}
    plain["classes"]["outside"] = audit.classes.outside.tolist()
    del plain["floor"]["draws"]
    return plain | {
        "near_chance": audit.near_chance,
        "miscalibrated": audit.miscalibrated,
        "uneven": audit.uneven,
        "findings": findings(audit),
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, torch.Tensor):
        return [_plain(number) for number in value.tolist()]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(interval: Interval) -> str:
    """An estimate with the ends of its interval."""
    return f"{interval.estimate:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _percent(interval: Interval) -> str:
    return f"{interval.estimate:.0%} [{interval.low:.0%}, {interval.high:.0%}]"
