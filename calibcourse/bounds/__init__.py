"""The shared exponential-tail bound: every inequality of the theory as numbers, with its slack.

Calibration error and curvature are bounded by the same tail of the same margins (arXiv 2604.20614).
This file computes each step of that argument, so that a reader sees where it is loose:

    per sample     softmax_tail_bounds   B.3, B.3⁺      1 - p_y      from the margin
                   confidence_gap_bounds B.2            |1{ŷ=y} - c| from 1 - p_y
                   logit_hessian_bounds  B.4, B.4⁺      λ_max(H_z)   from the probabilities
    per data set   ece_bounds            4.1, 4.2, 4.4  ECE          from the margins
                   curvature_ladder      4.1, 4.2       λ_max(G)     from margins and Jacobians
                   mse_ladder            Appendix E     λ_max(G) under mean squared error
                   direct_sandwich       4.3            ECE          from λ_max(G)

Bounds that the paper states are called "paper"; the others are THEORY.md's, with their proofs.

Everything is computed from the logits in float64, kept as logarithms, and exponentiated for
display: a margin of 200 gives 1 - p_y = 1e-87. What a bound assumes is checked; where an assumption
fails, the bound is *missing*, with the reason, and its value reads nan.
"""

from .chain import NATS_PER_DECADE, Chain, Rung, Slack
from .of_curvature import Ladder, curvature_ladder, mse_ladder
from .of_ece import EceBounds, ece_bounds
from .per_sample import (
    GapBounds,
    HessianBounds,
    SampleBounds,
    TailBounds,
    confidence_gap_bounds,
    logit_hessian_bounds,
    softmax_tail_bounds,
)
from .sandwich import Sandwich, direct_sandwich

__all__ = [
    "NATS_PER_DECADE",
    "Chain",
    "EceBounds",
    "GapBounds",
    "HessianBounds",
    "Ladder",
    "Rung",
    "SampleBounds",
    "Sandwich",
    "Slack",
    "TailBounds",
    "confidence_gap_bounds",
    "curvature_ladder",
    "direct_sandwich",
    "ece_bounds",
    "logit_hessian_bounds",
    "mse_ladder",
    "softmax_tail_bounds",
]
