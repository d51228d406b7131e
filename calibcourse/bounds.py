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

import copy
import math
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import check_integer, check_logits, check_logits_and_target
from .curvature import (
    Eigenpair,
    GaussNewton,
    SymmetricOperator,
    jacobian_grams,
    logit_hessian_factor,
    logit_hessian_product,
    top_eigenpair,
)
from .curvature._network import (
    GRAPH_BYTES,
    evaluate,
    precise_logits,
    trainable_parameters,
    try_one_sample,
)
from .curvature.jacobian import _factorising, _recorded_linear_calls
from .margins import log_margin_moment, soft_margin, true_margin
from .metrics import (
    accuracy,
    confidence_and_correct,
    expected_calibration_error,
    mean_misconfidence,
)

NATS_PER_DECADE = math.log(10.0)
ROUNDING = 1e-12  # relative error of a float64 mean over a data set
# float32 ends at 1e-38, and entries of G v are smaller than λ_max: below this mean misconfidence
# the curvature of a float32 network is computed in float64.
SMALLEST_IN_FLOAT32 = 1e-30

# ---------------------------------------------------------------------------- per sample


@dataclass(frozen=True, eq=False)
class TailBounds:
    """1 - p_y of N samples between its bounds; what `softmax_tail_bounds` returns.

    Attributes:
        lower, value, upper: (N,) float64: σ(-m) <= 1 - p_y <= σ(log(K-1) - m), THEORY.md B.3⁺.
        paper_lower, paper_upper: (N,) float64: e^{-m}/(1 + (K-1)e^{-m}) and (K-1)e^{-m}, paper
            Lemma B.3.
        log: the same five as natural logarithms, which neither overflow nor underflow.
    """

    lower: Tensor
    value: Tensor
    upper: Tensor
    paper_lower: Tensor
    paper_upper: Tensor
    log: "TailBounds | None" = None

    @property
    def holds(self) -> bool:
        """Whether every sample obeys all four inequalities, up to 8 units in the last place."""
        log = self.log or self
        return _ordered(log.paper_lower, log.lower, log.value, log.upper, log.paper_upper)

    def slack(self) -> dict[str, Tensor]:
        """For each bound, (N,): log10 of the factor by which it misses the value; 0 is tight."""
        return _slack_to_value(self.log or self)

    def __repr__(self) -> str:
        return _describe(self)


def softmax_tail_bounds(logits: Tensor, target: Tensor) -> TailBounds:
    """Misconfidence 1 - p_y = S/(1+S) in the band that its margin allows.

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
    return _with_logarithms(TailBounds, lower, value, upper, paper_lower, paper_upper)


@dataclass(frozen=True, eq=False)
class GapBounds:
    """|1{ŷ=y} - c| of N samples and its bound; what `confidence_gap_bounds` returns.

    Attributes:
        value: (N,) float64, the gap between being right and the confidence.
        upper: (N,) float64, 1 - p_y, paper Lemma B.2; equal where the prediction is right.
        log: the same two as natural logarithms.
    """

    value: Tensor
    upper: Tensor
    log: "GapBounds | None" = None

    @property
    def holds(self) -> bool:
        """Whether every sample obeys the inequality, up to 8 units in the last place."""
        log = self.log or self
        return _ordered(log.value, log.upper)

    def slack(self) -> dict[str, Tensor]:
        """(N,): log10 of the factor by which the bound exceeds the gap; 0 is tight."""
        return _slack_to_value(self.log or self)

    def __repr__(self) -> str:
        return _describe(self)


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
    return _with_logarithms(GapBounds, torch.where(correct, upper, log_confidence), upper)


@dataclass(frozen=True, eq=False)
class HessianBounds:
    """λ_max(H_z) of N samples between its bounds; what `logit_hessian_bounds` returns.

    Attributes:
        value: (N,) float64, the largest eigenvalue of diag(p) - p pᵀ.
        lower: (N,) p_max (1 - p_max), THEORY.md B.4⁺: the Rayleigh quotient at the top class.
        trace_lower, trace_upper: (N,) tr/(K-1) and tr, tr = 1 - ‖p‖² >= 1 - p_max (B.4⁺).
        upper: (N,) 2 max_i p_i (1 - p_i), B.4⁺: Gershgorin's circles.
        paper_upper: (N,) 2 (1 - p_max), paper Lemma B.4: the circles, relaxed.
        log: the same six as natural logarithms.
    """

    value: Tensor
    lower: Tensor
    trace_lower: Tensor
    upper: Tensor
    trace_upper: Tensor
    paper_upper: Tensor
    log: "HessianBounds | None" = None

    @property
    def holds(self) -> bool:
        """Whether every sample obeys all inequalities, up to 8 units in the last place."""
        log = self.log or self
        return (
            _ordered(log.lower, log.value, log.upper, log.paper_upper)
            and _ordered(log.trace_lower, log.value, log.trace_upper)
            and _ordered(log.upper, torch.full_like(log.upper, -math.log(2.0)))
        )

    def slack(self) -> dict[str, Tensor]:
        """For each bound, (N,): log10 of the factor by which it misses the value; 0 is tight."""
        return _slack_to_value(self.log or self)

    def __repr__(self) -> str:
        return _describe(self)


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
    over_q = (value, p, trace_lower, gershgorin, trace, torch.full_like(p, 2.0))
    log_q = F.logsigmoid(-lead)
    return _with_logarithms(HessianBounds, *(log_q + factor.log() for factor in over_q))


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


# ---------------------------------------------------------------------------- chains


class Rung(NamedTuple):
    """One bound in a chain of inequalities.

    Attributes:
        name: how a lesson calls it.
        log_value: its natural logarithm; nan where an assumption is not met.
        inner: the name of its neighbour one inequality nearer to the bounded quantity.
        side: -1 for a lower bound, 1 for an upper bound, 0 for the bounded quantity itself.
        formula, source: what it is, and where it is proved.
        missing: why it is not available; empty where it is.
    """

    name: str
    log_value: float
    inner: str
    side: int
    formula: str
    source: str
    missing: str = ""


class Slack(NamedTuple):
    """What a bound gives away, as log10 of a factor: against its inner neighbour, and in total."""

    step: float
    total: float


@dataclass(frozen=True, eq=False)
class Chain:
    """Bounds in order, each one inequality away from the next; the base of what follows.

    A rung's value is an attribute: `ladder.u6`; its logarithm is `ladder.log["u6"]`. Where a rung's
    assumption is not met both are nan, and `ladder.missing["u6"]` says why.

    Attributes:
        rungs: from the weakest lower bound to the weakest upper bound.
        tolerance: relative error that `holds` allows for.
    """

    rungs: tuple[Rung, ...]
    tolerance: float

    @property
    def log(self) -> dict[str, float]:
        """Natural logarithm of every rung."""
        return {rung.name: rung.log_value for rung in self.rungs}

    @property
    def missing(self) -> dict[str, str]:
        """Why a rung is not available, for those that are not."""
        return {rung.name: rung.missing for rung in self.rungs if rung.missing}

    @property
    def holds(self) -> bool:
        """Whether every available inequality holds, up to the relative error `tolerance`."""
        allowed = math.log1p(self.tolerance)
        return all(self._excess(rung, rung.inner) >= -allowed for rung in self._available())

    def slack(self) -> dict[str, Slack]:
        """Slack(step, total) of every available bound, log10 of the factors lost; 0 is tight."""
        (value,) = (rung.name for rung in self.rungs if rung.side == 0)
        return {
            rung.name: Slack(
                self._excess(rung, rung.inner) / NATS_PER_DECADE,
                self._excess(rung, value) / NATS_PER_DECADE,
            )
            for rung in self._available()
            if rung.side
        }

    def _available(self) -> list[Rung]:
        return [rung for rung in self.rungs if not rung.missing]

    def _excess(self, rung: Rung, inner: str) -> float:
        """How far the rung lies outside another, in nats; 0 where both are equal (or infinite)."""
        nearer = self.log[inner]
        return 0.0 if rung.log_value == nearer else rung.side * (rung.log_value - nearer)

    def __getattr__(self, name: str) -> float:
        for rung in self.__dict__.get("rungs", ()):
            if rung.name == name:
                return _exp(rung.log_value)
        raise AttributeError(f"{type(self).__name__} has no rung or attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.log]

    def __repr__(self) -> str:
        slack = self.slack()
        width = max(len(rung.name) for rung in self.rungs)
        formula_width = max(len(rung.formula) for rung in self.rungs)
        lines = [f"{type(self).__name__}({self._heading()}holds={self.holds})"]
        for rung in reversed(self.rungs):
            start = f"  {rung.name:{width}}  {rung.formula:{formula_width}}"
            if rung.missing:
                lines.append(f"{start}  not available: {rung.missing}")
                continue
            factor = f"× 10^{rung.side * slack[rung.name].total:+.2f}" if rung.side else ""
            lines.append(
                f"{start}  {_show(rung.log_value):>9}  {factor:10}  {rung.source}".rstrip()
            )
        return "\n".join(lines)

    def _heading(self) -> str:
        return ""


# ---------------------------------------------------------------------------- calibration error


@dataclass(frozen=True, eq=False, repr=False)
class EceBounds(Chain):
    """ECE between its bounds; what `ece_bounds` returns.

    Attributes:
        regime: "interpolating" where γ > 0 (every prediction right), else "general".
        gamma: γ = min m, the smallest true margin, in logit units.
        paper_lower, lower: Q/K and Q/(1 + e^{-γ}), where γ > 0 (paper Thm 4.2, THEORY.md 4.4).
        ece: the calibration error itself.
        gap, misconfidence: mean |1{ŷ=y} - c| (B.1) and mean 1 - p_y (B.2).
        upper: mean σ(log(K-1) - m), from the margins alone (B.3⁺); never above 1.
        paper_upper: (K-1) Q (paper Thm 4.1).
        gamma_upper: (K-1) e^{-γ}, where γ > 0 (paper Thm 4.2).
        robust_upper, paper_robust_upper: as upper and paper_upper, with the robust margins.
    """

    regime: str
    gamma: float

    def _heading(self) -> str:
        return f"{self.regime}, gamma={self.gamma:.4g}, "


def ece_bounds(
    logits: Tensor, target: Tensor, n_bins: int = 15, robust_margins: Tensor | None = None
) -> EceBounds:
    """Expected calibration error between its bounds by margins, weakest to sharpest.

    In any regime, ECE <= mean |1{ŷ=y} - c| <= mean(1 - p_y) <= mean σ(log(K-1) - m) <= (K-1) Q
    <= (K-1) Q_att. Where γ = min m > 0, also Q/K <= Q/(1 + e^{-γ}) <= ECE and Q <= e^{-γ}, and ECE
    is the mean misconfidence whatever the bins. Sources: paper Lemmas B.1 to B.3, Thms 4.1 and 4.2;
    THEORY.md B.3⁺ and 4.4.

    Args:
        logits: (N, K), any floating dtype.
        target: (N,), int64 labels in 0..K-1.
        n_bins: M, bins of equal width in confidence.
        robust_margins: (N,), from `robust_margin` for the same samples: upper bounds on m_ε, so the
            bounds that use them stay valid, and lie between those of Q and those of Q_ε.

    Returns:
        `EceBounds`; a rung whose assumption fails is missing, with the reason.

    Raises:
        ValueError, TypeError: wrong shapes or dtypes, a label out of range, NaN or inf logits,
            n_bins < 1, robust margins above the clean ones.

    Example:
        >>> logits = torch.tensor([[3.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
        >>> bounds = ece_bounds(logits, torch.tensor([0, 0]))
        >>> round(bounds.paper_lower, 4), round(bounds.lower, 4), round(bounds.ece, 4)
        (0.0309, 0.0815, 0.1518)
        >>> wrong = ece_bounds(logits, torch.tensor([1, 0]))
        >>> wrong.regime, wrong.missing["lower"]
        ('general', 'needs γ > 0, and the smallest margin is -3')
    """
    check_logits_and_target(logits, target)
    z, n_classes = logits.double(), logits.shape[1]
    ece = float(expected_calibration_error(z, target, n_bins))
    margin = true_margin(z, target)
    gamma = margin.min().item()
    gaps = confidence_gap_bounds(z, target).log
    log_q = float(log_margin_moment(margin))
    log_rivals = math.log(n_classes - 1)
    positive = "" if gamma > 0 else f"needs γ > 0, and the smallest margin is {gamma:.4g}"
    robust, attacked = _robust_or_clean(robust_margins, margin)
    log_q_robust = float(log_margin_moment(robust))
    log_lower = log_q - math.log1p(math.exp(-gamma)) if gamma > 0 else math.nan

    paper, here = "[paper]", "[here]"
    rungs = (
        Rung("paper_lower", log_q - math.log(n_classes), "lower", -1,
             "Q/K", f"{paper} Thm 4.2", positive),
        Rung("lower", log_lower, "ece", -1, "Q/(1 + e^-γ)", f"{here} 4.4", positive),
        Rung("ece", _log(ece), "ece", 0, "ECE", ""),
        Rung("gap", _log_mean(gaps.value), "ece", 1, "mean |1{ŷ=y} - c|", f"{paper} B.1"),
        Rung("misconfidence", _log_mean(gaps.upper), "gap", 1, "mean 1 - p_y", f"{paper} B.2"),
        Rung("upper", _log_mean(F.logsigmoid(log_rivals - margin)), "misconfidence", 1,
             "mean σ(log(K-1) - m)", f"{here} B.3⁺"),
        Rung("paper_upper", log_rivals + log_q, "upper", 1, "(K-1) Q", f"{paper} Thm 4.1"),
        Rung("gamma_upper", log_rivals - gamma, "paper_upper", 1,
             "(K-1) e^-γ", f"{paper} Thm 4.2", positive),
        Rung("robust_upper", _log_mean(F.logsigmoid(log_rivals - robust)), "upper", 1,
             "mean σ(log(K-1) - m_att)", f"{here} B.3⁺", attacked),
        Rung("paper_robust_upper", log_rivals + log_q_robust, "paper_upper", 1,
             "(K-1) Q_att", f"{paper} Thm 4.1", attacked),
    )  # fmt: skip
    regime = "interpolating" if gamma > 0 else "general"
    return EceBounds(_without_missing(rungs), ROUNDING, regime, gamma)


# ---------------------------------------------------------------------------- curvature


@dataclass(frozen=True, eq=False, repr=False)
class Ladder(Chain):
    """λ_max(G) between its bounds; what `curvature_ladder` and `mse_ladder` return.

    Attributes:
        u0 .. u7, l1 .. l4: the rungs of THEORY.md 4.1, in units of λ_max.
        eigenpair: of λ_max = u0: whether it converged, and the vector to start the next one from.
        max_jacobian_norm: C_J, the largest ‖J_i‖_op.
    """

    eigenpair: Eigenpair
    max_jacobian_norm: float

    def _heading(self) -> str:
        converged = "" if self.eigenpair.converged else "λ_max NOT converged, "
        return f"{converged}C_J={self.max_jacobian_norm:.4g}, "


def curvature_ladder(
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    robust_margins: Tensor | None = None,
    *,
    v0: Tensor | None = None,
    tol: float = 1e-3,
    max_matvecs: int = 100,
) -> Ladder:
    """Every inequality around λ_max of the Gauss-Newton matrix, as numbers (THEORY.md 4.1).

    l4 <= l3 <= l2 <= l1 <= u0 = λ_max(G) <= u1 <= ... <= u7: where, between the network's curvature
    and the exponential margin moment, is the paper's bound u6 = 2 C_J² (K-1) Q loose? The lower
    rungs need a network that ends in a linear layer with a trainable bias, since ∂z/∂b = I is what
    they are made of.

    Args:
        model: maps (N, ...) to logits (N, K); BatchNorm and dropout must be in eval mode.
        inputs: (N, ...), the model's dtype and device.
        target: (N,), int64 labels in 0..K-1.
        robust_margins: (N,), from `robust_margin` for the same samples, for u7.
        v0: (d,), `ladder.eigenpair.vector` of a nearby point: about halves the cost of u0.
        tol, max_matvecs: of u0, as for `top_eigenpair`; `holds` allows a relative error of tol.

    Returns:
        `Ladder`; a rung whose assumption fails is missing, with the reason.

    Raises:
        ValueError, TypeError: wrong shapes or dtypes, a label out of range, non-finite inputs,
            parameters or logits, BatchNorm or dropout in train mode, no trainable parameter, robust
            margins above the clean ones.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> _, _ = nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        >>> ladder = curvature_ladder(model, torch.eye(2), torch.tensor([0, 1]))
        >>> round(ladder.u0, 4), round(ladder.l2, 4), round(ladder.u6, 4)  # H_i has 1/3 twice
        (0.5, 0.3333, 8.0)
        >>> ladder.missing
        {'u7': 'needs robust_margins'}
    """
    logits, features, why_no_bias = _logits_and_last_features(model, inputs)
    check_logits_and_target(logits, target, "model(inputs)")
    robust, attacked = _robust_or_clean(robust_margins, true_margin(logits, target))
    if float(mean_misconfidence(logits)) < SMALLEST_IN_FLOAT32:
        model, inputs = copy.deepcopy(model).double(), inputs.double()
    pair = top_eigenpair(GaussNewton(model, inputs), v0, tol, max_matvecs)
    grams = jacobian_grams(model, inputs).double()
    log_norms = _log_top_eigenvalues(grams)  # of J Jᵀ, so log ‖J‖²
    uppers = _upper_rungs(logits, target, grams, log_norms, robust, attacked)
    lowers = _lower_rungs(logits, features, why_no_bias, tol, max_matvecs)
    return _ladder(lowers, pair, uppers, tol, float(log_norms.max()))


def _upper_rungs(
    logits: Tensor, target: Tensor, grams: Tensor, log_norms: Tensor, robust: Tensor, attacked: str
) -> tuple[Rung, ...]:
    log_q = float(log_margin_moment(true_margin(logits, target)))
    log_hessians = logit_hessian_bounds(logits).log.value
    log_u = _log(float(mean_misconfidence(logits)))
    log_misconfidence = _log_mean(F.logsigmoid(-soft_margin(logits, target)))
    log_cj2 = float(log_norms.max())
    log_2cj2, log_rivals = math.log(2.0) + log_cj2, math.log(logits.shape[1] - 1)
    here, paper = "[here]", "[paper]"
    return (
        Rung("u1", _log_mean(_log_sample_curvatures(grams, logits)), "u0", 1,
             "mean λ_max(J_iᵀ H_i J_i)", f"{here} 4.1"),
        Rung("u2", _log_mean(log_norms + log_hessians), "u1", 1,
             "mean ‖J_i‖² λ_max(H_i)", f"{here} 4.1"),
        Rung("u3", log_cj2 + _log_mean(log_hessians), "u2", 1,
             "C_J² mean λ_max(H_i)", f"{here} 4.1"),
        Rung("u4", log_2cj2 + log_u, "u3", 1, "2 C_J² u", f"{here} 4.2"),
        Rung("u5", log_2cj2 + log_misconfidence, "u4", 1, "2 C_J² mean 1 - p_y", f"{here} 4.1"),
        Rung("u6", log_2cj2 + log_rivals + log_q, "u5", 1,
             "2 C_J² (K-1) Q", f"{paper} Thm 4.1"),
        Rung("u7", log_2cj2 + log_rivals + float(log_margin_moment(robust)), "u6", 1,
             "2 C_J² (K-1) Q_att", f"{paper} Thm 4.1", attacked),
    )  # fmt: skip


def _lower_rungs(
    logits: Tensor, features: Tensor | None, why_no_bias: str, tol: float, max_matvecs: int
) -> tuple[Rung, ...]:
    log_rivals = math.log(logits.shape[1] - 1)
    log_u = _log(float(mean_misconfidence(logits)))
    mean_hessian = _mean_logit_hessian(logits)
    log_block = math.nan
    if features is not None:
        block = _LastBlock(logits, features)
        log_block = _log(top_eigenpair(block, tol=tol, max_matvecs=max_matvecs).value)
    here = "[here]"
    return (
        Rung("l4", log_u - log_rivals, "l3", -1, "u/(K-1)", f"{here} 4.2", why_no_bias),
        Rung("l3", _log(float(mean_hessian.trace())) - log_rivals, "l2", -1,
             "tr(mean H_i)/(K-1)", f"{here} 4.1", why_no_bias),
        Rung("l2", float(_log_top_eigenvalues(mean_hessian)), "l1", -1,
             "λ_max(mean H_i)", f"{here} 4.1", why_no_bias),
        Rung("l1", log_block, "u0", -1, "λ_max(last layer's block)", f"{here} 4.1", why_no_bias),
    )  # fmt: skip


def mse_ladder(
    model: nn.Module,
    inputs: Tensor,
    *,
    v0: Tensor | None = None,
    tol: float = 1e-3,
    max_matvecs: int = 100,
) -> Ladder:
    """The ladder under mean squared error on one-hot targets: curvature that does not fade.

    The logit Hessian is the constant (2/K) I (paper Appendix E), so neither the margins nor the
    confidence enters: 2/K = l2 <= l1 <= u0 = λ_max(G) <= u1 = (2/K) mean ‖J_i‖² <= u3 = (2/K) C_J².
    The loss is averaged over samples and classes. Calibration stays poor too: at the ideal one-hot
    logits the confidence is only e/(e + K-1), 0.23 for K = 10.

    Args:
        model, inputs, v0, tol, max_matvecs: as for `curvature_ladder`.

    Returns:
        `Ladder` with the rungs l2, l1, u0, u1 and u3.

    Raises:
        ValueError, TypeError: as for `curvature_ladder`.

    Example:
        >>> mse_ladder(nn.Linear(2, 4), torch.eye(2)).l2
        0.5
    """
    logits, features, why_no_bias = _logits_and_last_features(model, inputs)
    log_scale = math.log(2.0 / logits.shape[1])
    pair = top_eigenpair(GaussNewton(model, inputs, "mse"), v0, tol, max_matvecs)
    log_norms = _log_top_eigenvalues(jacobian_grams(model, inputs).double())
    log_cj2 = float(log_norms.max())
    block = math.nan
    if not why_no_bias:
        moment = features.mT @ features / len(features)
        block = log_scale + float(_log_top_eigenvalues(moment))
    lowers = (
        Rung("l2", log_scale, "l1", -1, "2/K", "[paper] App. E", why_no_bias),
        Rung("l1", block, "u0", -1, "(2/K) λ_max(mean a aᵀ)", "[here] 4.1", why_no_bias),
    )  # fmt: skip
    uppers = (
        Rung("u1", log_scale + _log_mean(log_norms), "u0", 1, "(2/K) mean ‖J_i‖²", "[here] 4.1"),
        Rung("u3", log_scale + log_cj2, "u1", 1, "(2/K) C_J²", "[here] 4.1"),
    )  # fmt: skip
    return _ladder(lowers, pair, uppers, tol, log_cj2)


# ---------------------------------------------------------------------------- both


@dataclass(frozen=True)
class Sandwich:
    """ECE between bounds by curvature; what `direct_sandwich` returns.

    Attributes:
        lower: λ_max/(2 C_J²) - err (it may be negative, and then says nothing).
        ece: the calibration error.
        upper: (K-1) λ_max + err; nan where the network has no trainable output bias.
        error_rate: err, the share of wrong predictions.
        lambda_max: λ_max(G).
        inner_lower, inner_upper: abs(u - err) and u + err, the sandwich before curvature enters.
        misconfidence: u = 1 - c̄.
        missing: why upper is not available; empty where it is.
        tolerance: relative error that `holds` allows for.
    """

    lower: float
    ece: float
    upper: float
    error_rate: float
    lambda_max: float
    inner_lower: float
    inner_upper: float
    misconfidence: float
    missing: str = ""
    tolerance: float = field(default=0.0, repr=False)

    @property
    def holds(self) -> bool:
        """Whether lower <= inner_lower <= ece <= inner_upper <= upper, as far as available."""
        # All these are differences and sums of numbers up to err + u: that is what errors scale by.
        allowed = self.tolerance * self.inner_upper
        values = [self.lower, self.inner_lower, self.ece, self.inner_upper]
        if not self.missing:
            values.append(self.upper)
        return all(a <= b + allowed for a, b in pairwise(values))

    def __repr__(self) -> str:
        upper = f"not available: {self.missing}" if self.missing else f"{self.upper:.4g}"
        return (
            f"Sandwich({self.lower:.4g} <= {self.inner_lower:.4g} <= ECE = {self.ece:.4g} <= "
            f"{self.inner_upper:.4g} <= {upper}, holds={self.holds})"
        )


def direct_sandwich(
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    n_bins: int = 15,
    ladder: Ladder | None = None,
) -> Sandwich:
    """ECE and curvature are coupled up to the error rate (THEORY.md 4.3).

    λ_max/(2 C_J²) - err <= |u - err| <= ECE <= u + err <= (K-1) λ_max + err, for any bins. Where
    every training prediction is right, err = 0 and the two are forced together; on test data err
    stays, and nothing forces them.

    Args:
        model: maps (N, ...) to logits (N, K); BatchNorm and dropout must be in eval mode.
        inputs: (N, ...), the model's dtype and device.
        target: (N,), int64 labels in 0..K-1.
        n_bins: M, bins of equal width in confidence.
        ladder: `curvature_ladder` of the same model and inputs, if it is at hand: saves its cost.

    Returns:
        `Sandwich`.

    Raises:
        ValueError, TypeError: as for `curvature_ladder`; n_bins < 1.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> _, _ = nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        >>> direct_sandwich(model, torch.eye(2), torch.tensor([0, 0]))
        Sandwich(0.125 <= 0.6667 <= ECE = 0.6667 <= 0.6667 <= 1, holds=True)
    """
    check_integer(n_bins, "n_bins", 1)
    ladder = ladder or curvature_ladder(model, inputs, target)
    logits = _logits(model, inputs)
    error_rate = 1 - float(accuracy(logits, target))
    misconfidence = float(mean_misconfidence(logits))
    return Sandwich(
        lower=ladder.u0 / (2 * ladder.max_jacobian_norm**2) - error_rate,
        ece=float(expected_calibration_error(logits, target, n_bins)),
        upper=math.nan
        if "l4" in ladder.missing
        else (logits.shape[1] - 1) * ladder.u0 + error_rate,
        error_rate=error_rate,
        lambda_max=ladder.u0,
        inner_lower=abs(misconfidence - error_rate),
        inner_upper=misconfidence + error_rate,
        misconfidence=misconfidence,
        missing=ladder.missing.get("l4", ""),
        tolerance=ladder.tolerance,
    )


# ---------------------------------------------------------------------------- parts


class _LastBlock(SymmetricOperator):
    """The last layer's block of G: mean of H_i ⊗ (a_i a_iᵀ), on vectors of K × width entries."""

    def __init__(self, logits: Tensor, features: Tensor):
        self.logits, self.features = logits, features
        size = logits.shape[1] * features.shape[1]
        self.shape, self.dtype, self.device = (size, size), logits.dtype, logits.device

    def matvec(self, vector: Tensor) -> Tensor:
        weights = vector.view(self.logits.shape[1], -1)
        moved = logit_hessian_product(self.logits, self.features @ weights.mT)
        return (moved.mT @ self.features / len(self.features)).flatten()


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits (N, K), float64, in batches and without a graph."""
    size = max(1, GRAPH_BYTES // try_one_sample(model, inputs)[1])
    with torch.no_grad():
        return torch.cat([evaluate(model, batch) for batch in inputs.split(size)]).double()


def _logits_and_last_features(
    model: nn.Module, inputs: Tensor
) -> tuple[Tensor, Tensor | None, str]:
    """Logits and inputs of the last layer, float64, or why that layer does not serve.

    Returns:
        logits (N, K); features (N, width), a_i with a 1 appended for the bias, or None; the reason
        why the lower rungs are missing, empty where they are not.
    """
    trainable_parameters(model, inputs)  # checks both
    size = max(1, GRAPH_BYTES // try_one_sample(model, inputs)[1])
    logits, features, reasons = [], [], []
    for batch in inputs.split(size):
        with torch.enable_grad(), _recorded_linear_calls(model) as calls:
            output = evaluate(model, batch)
        logits.append(precise_logits(model, batch, output))
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
        features.append(torch.cat(columns, 1).double())
    reason = reasons[0] if reasons else ""
    return torch.cat(logits), None if reason else torch.cat(features), reason


def _robust_or_clean(robust: Tensor | None, margin: Tensor) -> tuple[Tensor, str]:
    """Robust margins (the clean ones where there are none), and why they are missing, if so."""
    if robust is None:
        return margin, "needs robust_margins"
    if not isinstance(robust, Tensor):
        raise TypeError(f"robust_margins must be a torch.Tensor, got {type(robust).__name__}")
    if robust.shape != margin.shape:
        raise ValueError(
            f"robust_margins must have shape {tuple(margin.shape)}, got {tuple(robust.shape)}"
        )
    robust = robust.detach().to(margin)
    # Above the clean margin by more than float32 rounding: margins of other samples, or of another
    # model. (NaN fails this comparison too.)
    if not (robust <= margin + 1e-3 * (1 + margin.abs())).all():
        raise ValueError(
            "robust_margins must not exceed the clean margins: were they measured on the same "
            "samples, in the same order, with the same model?"
        )
    return torch.minimum(robust, margin), ""


def _log_sample_curvatures(grams: Tensor, logits: Tensor) -> Tensor:
    """log λ_max(J_iᵀ H_i J_i), (N,): with H = S Sᵀ, of the K × K matrix Sᵀ (J Jᵀ) S."""
    factor = logit_hessian_factor(logits)
    return _log_top_eigenvalues(factor.mT @ grams @ factor)


def _mean_logit_hessian(logits: Tensor) -> Tensor:
    """Mean of diag(p) - p pᵀ, (K, K), from K × N times N × K; no row sum is a difference."""
    p = logits.softmax(1)
    outer = p.mT @ p / len(p)
    outer.diagonal().zero_()
    return torch.diag(outer.sum(1)) - outer


def _log_top_eigenvalues(matrices: Tensor) -> Tensor:
    """Logarithm of the largest eigenvalue of positive semidefinite matrices (..., n, n)."""
    return torch.linalg.eigvalsh(matrices)[..., -1].clamp(min=0).log()


def _ladder(
    lowers: tuple[Rung, ...], pair: Eigenpair, uppers: tuple[Rung, ...], tol: float, log_cj2: float
) -> Ladder:
    value = Rung("u0", _log(pair.value), "u0", 0, "λ_max(G)", "")
    rungs = _without_missing((*lowers, value, *uppers))
    return Ladder(rungs, tol, pair, math.exp(log_cj2 / 2))


def _without_missing(rungs: tuple[Rung, ...]) -> tuple[Rung, ...]:
    """The rungs, with nan where an assumption is not met."""
    return tuple(rung._replace(log_value=math.nan) if rung.missing else rung for rung in rungs)


Bounds = TypeVar("Bounds", TailBounds, GapBounds, HessianBounds)


def _with_logarithms(kind: type[Bounds], *logarithms: Tensor) -> Bounds:
    return kind(*(values.exp() for values in logarithms), log=kind(*logarithms))


def _names(bounds: Bounds) -> list[str]:
    return [f.name for f in fields(bounds) if f.name != "log"]


def _slack_to_value(log: Bounds) -> dict[str, Tensor]:
    return {
        name: (getattr(log, name) - log.value).abs() / NATS_PER_DECADE
        for name in _names(log)
        if name != "value"
    }


def _ordered(*logarithms: Tensor) -> bool:
    """Whether each is at most the next, up to 8 units in the last place of max(1, its size)."""
    eps = torch.finfo(torch.float64).eps
    return all(
        bool((low <= high + 8 * eps * high.abs().clamp(min=1.0)).all())
        for low, high in pairwise(logarithms)
    )


def _describe(bounds: Bounds) -> str:
    title = f"{type(bounds).__name__}(n={len(bounds.value)}, holds={bounds.holds})"
    means = {name: float(getattr(bounds, name).mean()) for name in _names(bounds)}
    kind = "mean" if bounds.log else "mean logarithm"
    return "\n".join(
        [f"{title}, {kind}:"]
        + [f"  {name:11}  {means[name]:.4g}" for name in sorted(means, key=means.get, reverse=True)]
    )


def _log_mean(logarithms: Tensor) -> float:
    """Logarithm of a mean, from logarithms."""
    return float(torch.logsumexp(logarithms, 0)) - math.log(len(logarithms))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _exp(value: float) -> float:
    return math.exp(value) if value < 709.0 else math.inf if value == value else math.nan


def _show(log_value: float) -> str:
    if abs(log_value) < 690 or not math.isfinite(log_value):
        return f"{_exp(log_value):.4g}"
    return f"10^{log_value / NATS_PER_DECADE:.1f}"
