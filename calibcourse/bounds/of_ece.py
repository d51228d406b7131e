"""ECE between its bounds by margins (THEORY.md B.1 to B.3⁺, 4.1, 4.2, 4.4)."""

import math
import warnings
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .._checks import check_logits_and_target
from .._devices import where_float64_is
from ..margins import log_margin_moment, true_margin
from ..metrics import expected_calibration_error
from .chain import Chain, Rung, log_mean, log_of, without_missing
from .per_sample import confidence_gap_bounds
from .robust import robust_or_clean

ROUNDING = 1e-12  # relative error of a float64 mean over a data set
SMALLEST = 1e-290  # ECE below which float64 soon runs out of digits, at e^-708


@dataclass(frozen=True, eq=False, repr=False)
class EceBounds(Chain):
    """ECE between its bounds; what `ece_bounds` returns.

    Attributes:
        regime: "interpolating" where γ > 0 (every prediction right), else "general".
        gamma: γ = min m, the smallest true margin, in logit units.
        paper_lower, lower: Q/K and Q/(1 + e^{-γ}), where γ > 0 (paper Thm 4.2, THEORY.md 4.4).
        ece: the calibration error itself.
        gap, error_probability: mean |1{ŷ=y} - c| (B.1) and mean 1 - p_y (B.2).
        upper: mean σ(log(K-1) - m), from the margins alone (B.3⁺); never above 1.
        paper_upper: (K-1) Q (paper Thm 4.1).
        gamma_upper: (K-1) e^{-γ}, where γ > 0 (paper Thm 4.2).
        robust_upper, paper_robust_upper: as upper and paper_upper, with the robust margins.
    """

    regime: str
    gamma: float

    @property
    def misconfidence(self) -> float:
        """Deprecated: `error_probability`; misconfidence is 1 - c."""
        warnings.warn(
            "EceBounds.misconfidence is now error_probability", DeprecationWarning, stacklevel=2
        )
        return self.error_probability

    def _heading(self) -> str:
        return f"{self.regime}, gamma={self.gamma:.4g}, "


@where_float64_is
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
        >>> import torch
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
    robust, attacked = robust_or_clean(robust_margins, margin)
    log_q_robust = float(log_margin_moment(robust))
    log_ece = log_of(ece)
    if gamma > 0 and ece < SMALLEST:  # then it is the mean gap, whatever the bins (THEORY.md 4.2)
        log_ece = log_mean(gaps.value)
    log_lower = log_q - math.log1p(math.exp(-gamma)) if gamma > 0 else math.nan

    paper, here = "[paper]", "[here]"
    rungs = (
        Rung("paper_lower", log_q - math.log(n_classes), "lower", -1,
             "Q/K", f"{paper} Thm 4.2", positive),
        Rung("lower", log_lower, "ece", -1, "Q/(1 + e^-γ)", f"{here} 4.4", positive),
        Rung("ece", log_ece, "ece", 0, "ECE", ""),
        Rung("gap", log_mean(gaps.value), "ece", 1, "mean |1{ŷ=y} - c|", f"{paper} B.1"),
        Rung("error_probability", log_mean(gaps.upper), "gap", 1, "mean 1 - p_y", f"{paper} B.2"),
        Rung("upper", log_mean(F.logsigmoid(log_rivals - margin)), "error_probability", 1,
             "mean σ(log(K-1) - m)", f"{here} B.3⁺"),
        Rung("paper_upper", log_rivals + log_q, "upper", 1, "(K-1) Q", f"{paper} Thm 4.1"),
        Rung("gamma_upper", log_rivals - gamma, "paper_upper", 1,
             "(K-1) e^-γ", f"{paper} Thm 4.2", positive),
        Rung("robust_upper", log_mean(F.logsigmoid(log_rivals - robust)), "upper", 1,
             "mean σ(log(K-1) - m_att)", f"{here} B.3⁺", attacked),
        Rung("paper_robust_upper", log_rivals + log_q_robust, "paper_upper", 1,
             "(K-1) Q_att", f"{paper} Thm 4.1", attacked),
    )  # fmt: skip
    regime = "interpolating" if gamma > 0 else "general"
    return EceBounds(without_missing(rungs), ROUNDING, regime, gamma)
