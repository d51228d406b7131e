"""Training objectives, all called as loss(model, inputs, target) -> LossTerms."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import check_real


@dataclass(frozen=True)
class LossTerms:
    """What a loss returns: the total to differentiate, its terms, and the clean logits.

    Attributes:
        total: scalar, the weighted sum that the optimizer minimises.
        cross_entropy: scalar, detached, in nats: the plain cross-entropy of the clean inputs.
        robust: scalar, detached: the unweighted robust term, 0 where the loss has none.
        smooth: scalar, detached: the unweighted smoothness term, 0 where the loss has none.
        logits: (N, K), detached: the model's output on the clean inputs.
    """

    total: Tensor
    cross_entropy: Tensor
    robust: Tensor
    smooth: Tensor
    logits: Tensor


class CrossEntropy:
    """Mean cross-entropy in nats, with optional label smoothing (Szegedy et al. 2016).

    Args:
        label_smoothing: share of the target mass spread evenly over all classes, in [0, 1].

    Raises:
        ValueError, TypeError: label_smoothing outside [0, 1] or not a number.

    Example:
        >>> import torch
        >>> terms = CrossEntropy()(nn.Flatten(), torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
        >>> round(terms.total.item(), 4)
        1.0986
    """

    def __init__(self, label_smoothing: float = 0.0):
        check_real(label_smoothing, "label_smoothing", 0.0, 1.0)
        self.label_smoothing = label_smoothing

    def __call__(self, model: nn.Module, inputs: Tensor, target: Tensor) -> LossTerms:
        logits = model(inputs)
        plain = F.cross_entropy(logits, target)
        total = plain
        if self.label_smoothing:
            total = F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        zero = plain.new_zeros(())
        return LossTerms(total, plain.detach(), zero, zero, logits.detach())
