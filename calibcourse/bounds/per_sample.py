"""What one sample's logits say of it: 1 - p_y, |1{ŷ=y} - c| and λ_max(H_z) between their bounds."""

import math
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import check_logits, check_logits_and_target
from .._devices import where_float64_is
from ..margins import soft_margin, true_margin
from ..metrics import confidence_and_correct
from .chain import NATS_PER_DECADE


@dataclass(frozen=True, eq=False, repr=False)
class SampleBounds:
    """A quantity of N samples between its bounds; the base of the three kinds below.

    `bounds.value` and every bound, such as `bounds.upper`, are (N,) float64. Kept are their
    logarithms, which neither overflow nor underflow: `bounds.log.upper`.

    Attributes:
        log: natural logarithms, (N,) float64 each, by the name of the value or bound.
        chains: names, each at most the next on every sample.
    """

    log: SimpleNamespace
    chains: ClassVar[tuple[tuple[str, ...], ...]]

    @property
    def holds(self) -> bool:
        """Whether every sample obeys all inequalities, up to 8 units in the last place."""
        return all(
            _ordered(getattr(self.log, low), getattr(self.log, high))
            for chain in self.chains
            for low, high in pairwise(chain)
        )

    def slack(self) -> dict[str, Tensor]:
        """For each bound, (N,): log10 of the factor by which it misses the value; 0 is tight."""
        logarithms = vars(self.log)
        return {
            name: (bound - self.log.value).abs() / NATS_PER_DECADE
            for name, bound in logarithms.items()
            if name != "value"
        }

    def __getattr__(self, name: str) -> Tensor:
        logarithms = vars(self.__dict__.get("log", SimpleNamespace()))
        if name not in logarithms:
            raise AttributeError(f"{type(self).__name__} has no bound or attribute {name!r}")
        return logarithms[name].exp()

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *vars(self.log)]

    def __repr__(self) -> str:
        means = {name: float(values.exp().mean()) for name, values in vars(self.log).items()}
        lines = [f"{type(self).__name__}(n={len(self.log.value)}, holds={self.holds}), mean:"]
        for name in sorted(means, key=lambda name: -means[name]):
            lines.append(f"  {name:11}  {means[name]:.4g}")
        return "\n".join(lines)


class TailBounds(SampleBounds):
    """1 - p_y of N samples between its bounds; what `softmax_tail_bounds` returns.

    Attributes:
        lower, value, upper: (N,) float64: σ(-m) <= 1 - p_y <= σ(log(K-1) - m), THEORY.md B.3⁺.
        paper_lower, paper_upper: (N,) float64: e^{-m}/(1 + (K-1)e^{-m}) and (K-1)e^{-m}, paper
            Lemma B.3.
    """

    chains = (("paper_lower", "lower", "value", "upper", "paper_upper"),)


class GapBounds(SampleBounds):
    """|1{ŷ=y} - c| of N samples and its bound; what `confidence_gap_bounds` returns.

    Attributes:
        value: (N,) float64, the gap between being right and the confidence.
        upper: (N,) float64, 1 - p_y, paper Lemma B.2; equal where the prediction is right.
    """

    chains = (("value", "upper"),)


class HessianBounds(SampleBounds):
    """λ_max(H_z) of N samples between its bounds; what `logit_hessian_bounds` returns.

    Attributes:
        value: (N,) float64, the largest eigenvalue of diag(p) - p pᵀ.
        lower: (N,) p_max (1 - p_max), THEORY.md B.4⁺: the Rayleigh quotient at the top class.
        trace_lower, trace_upper: (N,) tr/(K-1) and tr, tr = 1 - ‖p‖² >= 1 - p_max (B.4⁺).
        upper: (N,) 2 max_i p_i (1 - p_i) <= 1/2, B.4⁺: Gershgorin's circles.
        paper_upper: (N,) 2 (1 - p_max), paper Lemma B.4: the circles, relaxed.
    """

    chains = (
        ("lower", "value", "upper", "paper_upper"),
        ("trace_lower", "value", "trace_upper"),
    )

    @property
    def holds(self) -> bool:
        """Whether every sample obeys all inequalities, and upper <= 1/2, up to 8 last places."""
        return super().holds and _ordered(self.log.upper, self.log.upper.new_tensor(math.log(0.5)))


@where_float64_is
def softmax_tail_bounds(logits: Tensor, target: Tensor) -> TailBounds:
    """Error probability 1 - p_y = S/(1+S) in the band that the margin allows.

    S = Σ_{j≠y} e^{z_j - z_y} lies between its largest term e^{-m} and K-1 times it, and s/(1+s)
    increases (THEORY.md B.3⁺). For m >= 0 the left side is at least e^{-m}/2, whatever K is. Both
    sides are equalities for K = 2. The paper's bounds follow (Lemma B.3) and are weaker: its left
    one by the factor 1 + (K-2)σ(-m), its right one is without the denominator.

    Pass `logits.argmax(1)` as target for the bounds without labels: 1 - c <= (K-1)e^{-m̂} (B.6).
    Robust margins enter by B.5: e^{-m} <= e^{-m_ε}.

    Args:
        logits: (N, K), any floating dtype.
        target: (N,), int64 labels in 0..K-1.

    Returns:
        `TailBounds`, (N,) float64 each.

    Raises:
        ValueError, TypeError: wrong shapes or dtypes, a label out of range, NaN or inf logits.

    Example:
        >>> band = softmax_tail_bounds(torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]))
        >>> band
        TailBounds(n=1, holds=True), mean:
          paper_upper  0.2707
          upper        0.213
          value        0.1562
          lower        0.1192
          paper_lower  0.1065
        >>> far = softmax_tail_bounds(torch.tensor([[2000.0, 0.0]]), torch.tensor([0]))
        >>> far.value, far.log.value
        (tensor([0.], dtype=torch.float64), tensor([-2000.], dtype=torch.float64))
    """
    check_logits_and_target(logits, target)
    z = logits.double()
    margin, n_rivals = true_margin(z, target), logits.shape[1] - 1
    lower = F.logsigmoid(-margin)
    paper_upper = math.log(n_rivals) - margin
    # (1 + (K-1)s) / (1 + s) = 1 + (K-2)σ(-m) with s = e^{-m}: no difference of large logarithms.
    paper_lower = lower - torch.log1p((n_rivals - 1) * lower.exp())
    value, upper = F.logsigmoid(-soft_margin(z, target)), F.logsigmoid(paper_upper)
    return TailBounds(
        SimpleNamespace(
            lower=lower,
            value=value,
            upper=upper,
            paper_lower=paper_lower,
            paper_upper=paper_upper,
        )
    )


@where_float64_is
def confidence_gap_bounds(logits: Tensor, target: Tensor) -> GapBounds:
    """The gap |1{ŷ=y} - c| of every sample, at most 1 - p_y (paper Lemma B.2).

    Its mean bounds ECE for any partition into bins, by Jensen inside each bin (paper Lemma B.1).

    Args:
        logits: (N, K), any floating dtype.
        target: (N,), int64 labels in 0..K-1.

    Returns:
        `GapBounds`, (N,) float64 each.

    Raises:
        ValueError, TypeError: wrong shapes or dtypes, a label out of range, NaN or inf logits.

    Example:
        >>> logits = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> gaps = confidence_gap_bounds(logits, torch.tensor([0, 1]))  # right, then wrong
        >>> gaps.value, gaps.upper  # doctest: +NORMALIZE_WHITESPACE
        (tensor([0.4239, 0.5761], dtype=torch.float64),
         tensor([0.4239, 0.7881], dtype=torch.float64))
    """
    _, correct = confidence_and_correct(logits, target)
    z = logits.double()
    log_confidence = F.logsigmoid(soft_margin(z, z.argmax(1)))
    upper = F.logsigmoid(-soft_margin(z, target))
    value = torch.where(correct, upper, log_confidence)
    return GapBounds(SimpleNamespace(value=value, upper=upper))


@where_float64_is
def logit_hessian_bounds(logits: Tensor) -> HessianBounds:
    """λ_max of the logit Hessian H_z = diag(p) - p pᵀ, exactly, and the bounds B.4 and B.4⁺.

    p_max (1 - p_max) <= λ_max <= 2 max_i p_i (1 - p_i) <= min(1/2, 2 (1 - p_max)), and
    tr/(K-1) <= λ_max <= tr. No label is needed, and no K × K matrix is formed.

    Args:
        logits: (N, K), any floating dtype.

    Returns:
        `HessianBounds`, (N,) float64 each.

    Raises:
        ValueError, TypeError: wrong shape or dtype, NaN or inf logits.

    Example:
        >>> logit_hessian_bounds(torch.zeros(1, 4))  # p = 1/4: every non-zero eigenvalue is 1/4
        HessianBounds(n=1, holds=True), mean:
          paper_upper  1.5
          trace_upper  0.75
          upper        0.375
          value        0.25
          trace_lower  0.25
          lower        0.1875
    """
    check_logits(logits)
    z = logits.double()
    top = z.argmax(1)
    lead = soft_margin(z, top)
    p, q = torch.sigmoid(lead), torch.sigmoid(-lead)  # p_max and 1 - p_max
    # Everything is 1 - p_max times something of order 1: with the probabilities of the other
    # classes given that it is not the top one, p_i = q r_i, nothing underflows.
    r = z.scatter(1, top[:, None], -math.inf).softmax(1)
    trace = p + 1 - q * r.square().sum(1)
    gershgorin = 2 * torch.maximum(p, (r * (1 - q[:, None] * r)).amax(1))
    trace_lower = trace / (z.shape[1] - 1)
    value = _top_eigenvalue_over_q(p, q, r, torch.maximum(p, trace_lower))
    over_q = {
        "value": value,
        "lower": p,
        "trace_lower": trace_lower,
        "upper": gershgorin,
        "trace_upper": trace,
        "paper_upper": torch.full_like(p, 2.0),
    }
    log_q = F.logsigmoid(-lead)
    return HessianBounds(SimpleNamespace(**{k: log_q + v.log() for k, v in over_q.items()}))


def _top_eigenvalue_over_q(p: Tensor, q: Tensor, r: Tensor, lower: Tensor) -> Tensor:
    """λ_max(diag(p) - p pᵀ) / q for p = (p, q r): a root of the secular equation.

    Eigenvalues λ = qμ with Σ_i p_i/(λ - p_i) = 0; the largest is the one root μ in [r_max, p/q] of
    F(μ) = 1/Σ_i r_i/(μ - r_i) - 1 + (q/p) μ. The first term is a harmonic mean of linear functions,
    so F is concave, and increasing: Newton's method from a lower bound never overshoots.
    """
    r_max = r.amax(1)
    root = torch.maximum(lower, r_max)
    for _ in range(100):  # about 6 are needed
        distance = root - r_max
        # (μ - r_max)/(μ - r_i), which is 1 at the largest r_i, also where μ = r_max: 0/0.
        near = (distance[:, None] / (root[:, None] - r)).nan_to_num(nan=1.0)
        mean = (r * near).sum(1)
        residual = distance / mean - 1 + q / p * root
        slope = (r * near.square()).sum(1) / mean.square() + q / p
        step = (-residual / slope).clamp(min=0)
        root = root + step
        if (step <= 4 * torch.finfo(root.dtype).eps * root).all():
            break
    return root


def _ordered(low: Tensor, high: Tensor) -> bool:
    """Whether low <= high everywhere, up to 8 units in the last place of max(1, |high|)."""
    allowed = 8 * torch.finfo(torch.float64).eps * high.abs().clamp(min=1.0)
    return bool((low <= high + allowed).all())
