"""What a network's last linear layer says of its curvature: that layer's own block of G.

For z = W a + b the Jacobian in W and b is known from the features a, so its block of the
Gauss–Newton matrix needs no differentiation: mean of H_i ⊗ (a_i a_iᵀ) (THEORY.md 4.1).
"""

import torch
from torch import Tensor, nn

from .._devices import precise
from ._network import GRAPH_BYTES, evaluate, precise_logits, prepared, try_one_sample
from .jacobian import _factorising, _recorded_linear_calls
from .logit_hessian import logit_hessian_product
from .operators import SymmetricOperator


class LastLayerBlock(SymmetricOperator):
    """The last layer's block of G: mean of H_i ⊗ (a_i a_iᵀ), on vectors of K × width entries."""

    def __init__(self, logits: Tensor, features: Tensor):
        self.logits, self.features = logits, features
        size = logits.shape[1] * features.shape[1]
        self.shape, self.dtype, self.device = (size, size), logits.dtype, logits.device

    def matvec(self, vector: Tensor) -> Tensor:
        """The block times a flat vector, without the block itself."""
        weights = vector.view(self.logits.shape[1], -1)
        moved = logit_hessian_product(self.logits, self.features @ weights.mT)
        return (moved.mT @ self.features / len(self.features)).flatten()


def bias_block(logits: Tensor) -> Tensor:
    """Mean of diag(p) - p pᵀ, (K, K), from K × N times N × K; no row sum is a difference."""
    p = logits.softmax(1)
    outer = p.mT @ p / len(p)
    outer.diagonal().zero_()
    return torch.diag(outer.sum(1)) - outer


def logits_and_last_features(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor | None, str]:
    """Logits and inputs of the last layer, float64, or why that layer does not serve.

    Returns:
        logits (N, K); features (N, width), a_i with a 1 appended for the bias, or None; the reason
        why the lower rungs are missing, empty where they are not.
    """
    model, inputs, _ = prepared(model, inputs)
    size = max(1, GRAPH_BYTES // try_one_sample(model, inputs)[1])
    logits, features, reasons = [], [], []
    for batch in inputs.split(size):
        with torch.enable_grad(), _recorded_linear_calls(model) as calls:
            output = evaluate(model, batch)
        logits.append(precise(precise_logits(model, batch, output)))
        last = [c for c in _factorising(calls, output, len(batch)) if c.output[0] == output.grad_fn]
        if not last:
            reasons.append("the logits are not the output of a linear layer used once")
            continue
        layer = last[0].module
        if layer.bias is None or not layer.bias.requires_grad:
            reasons.append("the last layer has no trainable bias")
            continue
        ones = last[0].features.new_ones(len(batch), 1)
        columns = [last[0].features, ones] if layer.weight.requires_grad else [ones]
        features.append(precise(torch.cat(columns, 1)))
    reason = reasons[0] if reasons else ""
    return torch.cat(logits), None if reason else torch.cat(features), reason


def logits_in_batches(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits (N, K), float64, in batches and without a graph."""
    model, inputs, _ = prepared(model, inputs)
    size = max(1, GRAPH_BYTES // try_one_sample(model, inputs)[1])
    with torch.no_grad():
        return precise(torch.cat([evaluate(model, batch) for batch in inputs.split(size)]))
