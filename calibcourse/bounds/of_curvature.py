"""λ_max of the Gauss-Newton matrix between its bounds (THEORY.md 4.1, 4.2; paper Appendix E)."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_logits_and_target
from .._conduct import undisturbed
from .._devices import measurable, precise
from ..curvature import (
    Eigenpair,
    GaussNewton,
    logit_hessian_factor,
    top_eigenpair,
)
from ..curvature.jacobian import gram_blocks
from ..curvature.last_layer import LastLayerBlock, bias_block, logits_and_last_features
from ..margins import log_margin_moment, soft_margin, true_margin
from .chain import Chain, Rung, log_mean, log_of, without_missing
from .per_sample import logit_hessian_bounds
from .robust import robust_or_clean

# A network that is surer than this on average is *lifted* to it, so that neither float32 (1e-38)
# nor float64 (e^-745) underflows: see `_Lifted`.
SMALLEST_MISCONFIDENCE = 1e-20


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


@undisturbed()
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
    logits, features, why_no_bias = logits_and_last_features(model, inputs)
    target, robust_margins = measurable(target), measurable(robust_margins)
    check_logits_and_target(logits, target, "model(inputs)")
    robust, attacked = robust_or_clean(robust_margins, true_margin(logits, target))
    lift = max(0.0, math.log(SMALLEST_MISCONFIDENCE) - _log_misconfidence(logits))
    lowers = _lower_rungs(_sure_less(logits, lift), features, why_no_bias, tol, max_matvecs)
    operator = GaussNewton(_Lifted(model, lift) if lift else model, inputs)
    pair = _top_eigenpair(operator, v0, tol, max_matvecs, lowers[-1].log_value)
    sizes = _log_sizes(model, inputs, _sure_less(logits, lift))
    uppers = _upper_rungs(logits, lift, target, *sizes, robust, attacked)
    log_norms, _ = sizes
    return _ladder(lowers, pair, uppers, tol, float(log_norms.max()), lift)


class _Lifted(nn.Module):
    """A network with the logit of every sample's top class lowered by a constant, the lift.

    The lift cancels in the Jacobian. Where a sample is sure, λ_max(H_i) and all of H_i are
    proportional to 1 - p_max up to a relative 1 - p_max, and the lift multiplies that by e^lift.
    """

    def __init__(self, model: nn.Module, lift: float):
        super().__init__()
        self.model, self.lift = model, lift

    def forward(self, inputs: Tensor) -> Tensor:
        return _sure_less(self.model(inputs), self.lift)


def _sure_less(logits: Tensor, lift: float) -> Tensor:
    top = F.one_hot(logits.argmax(1), logits.shape[1]).to(logits)
    return logits - lift * top


def _log_misconfidence(logits: Tensor) -> float:
    """log u: `mean_misconfidence` ends at e^-745."""
    return log_mean(F.logsigmoid(-soft_margin(logits, logits.argmax(1))))


def _top_eigenpair(
    operator: GaussNewton, v0: Tensor | None, tol: float, max_matvecs: int, log_floor: float
) -> Eigenpair:
    """λ_max; from a random start, where a given one led to an eigenvalue below a lower bound."""
    pair = top_eigenpair(operator, v0, tol, max_matvecs)
    if v0 is not None and log_of(pair.value) < log_floor - math.log1p(tol):
        fresh = top_eigenpair(operator, None, tol, max_matvecs)
        pair = replace(fresh, matvecs=pair.matvecs + fresh.matvecs)
    return pair


def _upper_rungs(
    logits: Tensor, lift: float, target: Tensor, log_norms: Tensor, log_curvatures: Tensor,
    robust: Tensor, attacked: str,
) -> tuple[Rung, ...]:  # fmt: skip
    log_q = float(log_margin_moment(true_margin(logits, target)))
    log_hessians = logit_hessian_bounds(logits).log.value
    log_u = _log_misconfidence(logits)
    log_misconfidence = log_mean(F.logsigmoid(-soft_margin(logits, target)))
    log_cj2 = float(log_norms.max())
    log_2cj2, log_rivals = math.log(2.0) + log_cj2, math.log(logits.shape[1] - 1)
    here, paper = "[here]", "[paper]"
    return (
        Rung("u1", log_mean(log_curvatures) - lift, "u0", 1,
             "mean λ_max(J_iᵀ H_i J_i)", f"{here} 4.1"),
        Rung("u2", log_mean(log_norms + log_hessians), "u1", 1,
             "mean ‖J_i‖² λ_max(H_i)", f"{here} 4.1"),
        Rung("u3", log_cj2 + log_mean(log_hessians), "u2", 1,
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
    log_u = _log_misconfidence(logits)
    mean_hessian = bias_block(logits)
    log_block = math.nan
    if features is not None:
        block = LastLayerBlock(logits, features)
        log_block = log_of(top_eigenpair(block, tol=tol, max_matvecs=max_matvecs).value)
    here = "[here]"
    return (
        Rung("l4", log_u - log_rivals, "l3", -1, "u/(K-1)", f"{here} 4.2", why_no_bias),
        Rung("l3", log_of(float(mean_hessian.trace())) - log_rivals, "l2", -1,
             "tr(mean H_i)/(K-1)", f"{here} 4.1", why_no_bias),
        Rung("l2", float(_log_top_eigenvalues(mean_hessian)), "l1", -1,
             "λ_max(mean H_i)", f"{here} 4.1", why_no_bias),
        Rung("l1", log_block, "u0", -1, "λ_max(last layer's block)", f"{here} 4.1", why_no_bias),
    )  # fmt: skip


@undisturbed()
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
    logits, features, why_no_bias = logits_and_last_features(model, inputs)
    log_scale = math.log(2.0 / logits.shape[1])
    blocks = gram_blocks(model, inputs)
    log_norms = torch.cat([_log_top_eigenvalues(precise(grams)) for grams in blocks])
    log_cj2 = float(log_norms.max())
    block = math.nan
    if features is not None and not why_no_bias:
        moment = features.mT @ features / len(features)
        block = log_scale + float(_log_top_eigenvalues(moment))
    lowers = (
        Rung("l2", log_scale, "l1", -1, "2/K", "[paper] App. E", why_no_bias),
        Rung("l1", block, "u0", -1, "(2/K) λ_max(mean a aᵀ)", "[here] 4.1", why_no_bias),
    )  # fmt: skip
    uppers = (
        Rung("u1", log_scale + log_mean(log_norms), "u0", 1, "(2/K) mean ‖J_i‖²", "[here] 4.1"),
        Rung("u3", log_scale + log_cj2, "u1", 1, "(2/K) C_J²", "[here] 4.1"),
    )  # fmt: skip
    pair = _top_eigenpair(GaussNewton(model, inputs, "mse"), v0, tol, max_matvecs, block)
    return _ladder(lowers, pair, uppers, tol, log_cj2)


def _log_sizes(model: nn.Module, inputs: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """log ‖J_i‖² and log λ_max(J_iᵀ H_i J_i), (N,) each, without all matrices at once."""
    log_norms, log_curvatures = [], []
    for grams in gram_blocks(model, inputs):
        some, logits = logits[: len(grams)], logits[len(grams) :]
        log_norms.append(_log_top_eigenvalues(precise(grams)))
        log_curvatures.append(_log_sample_curvatures(precise(grams), some))
    return torch.cat(log_norms), torch.cat(log_curvatures)


def _log_sample_curvatures(grams: Tensor, logits: Tensor) -> Tensor:
    """log λ_max(J_iᵀ H_i J_i), (N,): with H = S Sᵀ, of the K × K matrix Sᵀ (J Jᵀ) S."""
    factor = logit_hessian_factor(logits)
    return _log_top_eigenvalues(factor.mT @ grams @ factor)


def _log_top_eigenvalues(matrices: Tensor) -> Tensor:
    """Logarithm of the largest eigenvalue of positive semidefinite matrices (..., n, n)."""
    return torch.linalg.eigvalsh(matrices)[..., -1].clamp(min=0).log()


def _ladder(
    lowers: tuple[Rung, ...],
    pair: Eigenpair,
    uppers: tuple[Rung, ...],
    tol: float,
    log_cj2: float,
    lift: float = 0.0,
) -> Ladder:
    """Together; the lower rungs and the eigenpair come lifted."""
    value = Rung("u0", log_of(pair.value), "u0", 0, "λ_max(G)", "")
    lowered = (rung._replace(log_value=rung.log_value - lift) for rung in (*lowers, value))
    scale = math.exp(-lift)
    pair = replace(pair, value=scale * pair.value, residual=scale * pair.residual)
    rungs = without_missing((*lowered, *uppers))
    return Ladder(rungs, tol, pair, math.exp(log_cj2 / 2))
