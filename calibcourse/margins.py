"""Margins: how far, in logits, a sample stands from being classified otherwise.

Three margins of one sample, all differences of logits (so shifting every logit changes none):

    true margin       m    = z_y - max_{j≠y} z_j          negative where the prediction is wrong
    predicted margin  m̂    = z_ŷ - max_{j≠ŷ} z_j >= 0     needs no label
    soft margin       -log S_y = z_y - logsumexp_{j≠y} z_j   the max replaced by its soft form

The soft margin is the exact one for probabilities: p_y is its sigmoid. It lies between
m - log(K-1) and m, which is all there is to the softmax tail band of paper Lemma B.3.
"""

import math
import warnings

import torch
from torch import Tensor, nn

from ._checks import (
    check_choice,
    check_deterministic_model,
    check_finite,
    check_floating,
    check_inputs,
    check_logits,
    check_logits_and_target,
    check_real,
    check_target,
)
from ._conduct import input_gradient, undisturbed, usable, well_behaved

NORMS = ("linf", "l2")


def true_margin(logits: Tensor, target: Tensor) -> Tensor:
    """True margin m = z_y - max_{j≠y} z_j of every sample (THEORY.md section 1).

    Differentiable; where several competing classes tie, the gradient is shared among them.

    Args:
        logits: (N, K), any floating dtype.
        target: (N,), int64 labels in 0..K-1.

    Returns:
        (N,), dtype of logits, in logit units: positive where the prediction is right, negative
        where it is wrong.

    Raises:
        ValueError, TypeError: wrong shapes or dtypes, a label out of range, NaN or inf logits.

    Example:
        >>> logits = torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
        >>> true_margin(logits, torch.tensor([0, 1]))
        tensor([ 2., -2.])
    """
    check_logits_and_target(logits, target)
    return _true_margin(logits, target)


def predicted_margin(logits: Tensor) -> Tensor:
    """Predicted margin m̂ = z_ŷ - max_{j≠ŷ} z_j >= 0, which needs no label (THEORY.md section 1).

    It is the largest logit minus the second largest, hence 0 on a tie, and |m| where the
    prediction is right or where the true class is the runner-up.

    Args:
        logits: (N, K), any floating dtype.

    Returns:
        (N,), dtype of logits, in logit units, never negative.

    Raises:
        ValueError, TypeError: wrong shape or dtype, NaN or inf logits.

    Example:
        >>> predicted_margin(torch.tensor([[3.0, 1.0, 0.0], [2.0, 2.0, 0.0]]))
        tensor([2., 0.])
    """
    check_logits(logits)
    top = logits.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def soft_margin(logits: Tensor, target: Tensor) -> Tensor:
    """Soft margin z_y - logsumexp_{j≠y} z_j = -log S_y = log(p_y / (1 - p_y)).

    Every softmax quantity of the true class follows from it without cancellation:
    p_y = sigmoid(s), 1 - p_y = sigmoid(-s), cross-entropy = softplus(-s). The logsumexp of K - 1
    numbers exceeds their maximum by at most log(K-1), so m - log(K-1) <= s <= m, with equality on
    both sides for K = 2.

    Args:
        logits: (N, K), any floating dtype.
        target: (N,), int64 labels in 0..K-1.

    Returns:
        (N,), dtype of logits, in logit units.

    Raises:
        ValueError, TypeError: wrong shapes or dtypes, a label out of range, NaN or inf logits.

    Example:
        >>> soft_margin(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))  # 2 - log 2
        tensor([1.3069])
    """
    check_logits_and_target(logits, target)
    return _soft_margin(logits, target)


def error_probability(logits: Tensor, target: Tensor) -> Tensor:
    """Probability 1 - p_y that the model gives to the wrong classes (THEORY.md section 5).

    Computed as sigmoid(-s) with the soft margin s, so that 1e-40 is 1e-40: in float32, 1 - p_y is
    exactly 0 from a margin of 17 on. Below the smallest number of the dtype use its logarithm,
    `torch.nn.functional.logsigmoid(-soft_margin(logits, target))`.

    Args:
        logits: (N, K), any floating dtype.
        target: (N,), int64 labels in 0..K-1.

    Returns:
        (N,), dtype of logits, in [0, 1].

    Raises:
        ValueError, TypeError: wrong shapes or dtypes, a label out of range, NaN or inf logits.

    Example:
        >>> error_probability(torch.tensor([[30.0, 0.0]]), torch.tensor([0]))
        tensor([9.3576e-14])
    """
    margin = soft_margin(logits, target)
    # torch.sigmoid(-92.0) is 0 in float32, because it forms exp(92) = inf; this does not.
    small = torch.exp(-margin.abs())
    return torch.where(margin > 0, small, 1.0) / (1.0 + small)


def true_misconfidence(logits: Tensor, target: Tensor) -> Tensor:
    """Deprecated: `error_probability`; misconfidence is 1 - c, which needs no label."""
    warnings.warn(
        "true_misconfidence is now called error_probability", DeprecationWarning, stacklevel=2
    )
    return error_probability(logits, target)


def log_margin_moment(margin: Tensor) -> Tensor:
    """Log Q, the logarithm of the exponential margin moment Q = mean of e^{-m} (paper Sec. 4).

    log Q = logsumexp(-m) - log n. The logarithm is what to keep and to plot: e^{100} overflows
    float32, log Q does not. Give robust margins to get log Q_ε.

    Args:
        margin: (N,), in logit units, any floating dtype.

    Returns:
        Scalar, dtype of margin: at most -min m, at least -mean m.

    Raises:
        ValueError, TypeError: not a non-empty vector of finite floating numbers.

    Example:
        >>> log_margin_moment(torch.tensor([-100.0, 5.0]))  # the one wrong sample decides
        tensor(99.3069)
    """
    _check_margin(margin)
    return torch.logsumexp(-margin, 0) - math.log(len(margin))


def margin_moment(margin: Tensor) -> Tensor:
    """Exponential margin moment Q = mean of e^{-m} (paper Sec. 4), for display.

    Args:
        margin: (N,), in logit units, any floating dtype.

    Returns:
        Scalar, dtype of margin; inf where Q exceeds the dtype (use `log_margin_moment`).

    Raises:
        ValueError, TypeError: not a non-empty vector of finite floating numbers.

    Example:
        >>> margin_moment(torch.tensor([0.0, 0.0]))
        tensor(1.)
    """
    return log_margin_moment(margin).exp()


def margin_moment_share(margin: Tensor, fraction: float = 0.01) -> Tensor:
    """Share of Q that the samples with the smallest margins contribute: who dominates Q.

    Args:
        margin: (N,), in logit units, any floating dtype.
        fraction: share of the samples that counts as "worst", in [0, 1]; rounded up to a whole
            number of samples.

    Returns:
        Scalar in [0, 1], dtype of margin; at least `fraction`.

    Raises:
        ValueError, TypeError: not a non-empty vector of finite floating numbers, or fraction
            outside [0, 1].

    Example:
        >>> margin = torch.tensor([-4.0] + [4.0] * 99)
        >>> margin_moment_share(margin, 0.01)  # one wrong sample in a hundred
        tensor(0.9679)
    """
    _check_margin(margin)
    fraction = check_real(fraction, "fraction", 0.0, 1.0)
    # 0.07 * 100 is 7.000000000000001: without the slack, rounding up would take an eighth sample.
    n_worst = min(len(margin), math.ceil(fraction * len(margin) * (1 - 1e-12)))
    worst = margin.topk(n_worst, largest=False).values
    return torch.exp(torch.logsumexp(-worst, 0) - torch.logsumexp(-margin, 0))


@undisturbed()
def input_margin_gradient(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    """Gradient ∇_x m of every sample's true margin with respect to its own input.

    The length of this gradient at one point is not a Lipschitz constant of the margin on a ball,
    unless the margin is linear there (THEORY.md section 2).

    Args:
        model: maps inputs to logits (N, K). Its mode, parameters and their gradients are left
            untouched.
        inputs: (N, ...), finite, any floating dtype.
        target: (N,), int64 labels in 0..K-1.

    Returns:
        Like inputs, in logit units per input unit.

    Raises:
        ValueError, TypeError: wrong shapes or dtypes, a label out of range, NaN or inf inputs or
            logits, a model that draws random numbers or couples samples, as dropout and BatchNorm
            do in train mode (then one sample has no gradient of its own).

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        >>> input_margin_gradient(model, torch.ones(1, 2), torch.tensor([0]))  # w_0 - w_1
        tensor([[ 1., -3.]])
    """
    check_inputs(inputs)
    check_deterministic_model(model)
    inputs, target = usable(inputs), usable(target)
    model = well_behaved(model, inputs)
    with torch.enable_grad():
        point = inputs.detach().requires_grad_()
        # Samples do not mix, so the gradient of the sum holds every sample's own gradient.
        total = true_margin(model(point), target).sum()
        return input_gradient(total, point)


@undisturbed()
def linear_robust_margin(
    weight: Tensor,
    bias: Tensor | None,
    inputs: Tensor,
    target: Tensor,
    epsilon: float,
    norm: str = "linf",
) -> Tensor:
    """Exact robust margin m_ε of a linear model, the reference for every attack.

    m_ε = min_{j≠y} (z_y - z_j - ε ‖w_y - w_j‖_*) over the *whole* ball, not cut to the range of
    pixels, with ‖·‖_* the dual norm: L1 for the L∞ ball, L2 for the L2 ball (THEORY.md section 2).

    Args:
        weight: (K, D), as in `nn.Linear`.
        bias: (K,), or None.
        inputs: (N, ...) with D values per sample.
        target: (N,), int64 labels in 0..K-1.
        epsilon: radius of the ball, >= 0, in input units.
        norm: "linf" or "l2".

    Returns:
        (N,), in logit units.

    Raises:
        ValueError, TypeError: shapes that do not fit, a label out of range, NaN or inf, ε < 0,
            unknown norm.

    Example:
        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
        >>> x, y = torch.tensor([[5.0, 0.0]]), torch.tensor([0])
        >>> linear_robust_margin(weight, None, x, y, 0.5, "linf")  # 5 - 0.5 (1 + 3)
        tensor([3.])
    """
    check_inputs(inputs)
    check_inputs(weight, "weight")
    epsilon = check_real(epsilon, "epsilon", minimum=0.0)
    check_choice(norm, "norm", NORMS)
    features = inputs.flatten(1)
    if weight.ndim != 2 or weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"weight must have shape (K, {features.shape[1]}) to fit inputs, "
            f"got {tuple(weight.shape)}"
        )
    if bias is not None:
        check_floating(bias, "bias")
        if bias.shape != (len(weight),):
            raise ValueError(f"bias must have shape ({len(weight)},), got {tuple(bias.shape)}")
    for name, part in {"weight": weight, "bias": bias}.items():
        if part is not None and (part.dtype, part.device) != (inputs.dtype, inputs.device):
            raise TypeError(
                f"{name} must have the dtype and device of inputs, {inputs.dtype} on "
                f"{inputs.device}, got {part.dtype} on {part.device}"
            )
    check_target(target, len(inputs), len(weight), device=inputs.device)
    logits = nn.functional.linear(features, weight, bias)
    # One class y at a time: (K, D) differences instead of (N, K, D).
    drop = torch.empty_like(logits)
    for label in target.unique():
        difference = weight[label] - weight
        drop[target == label] = epsilon * difference.norm(p=1 if norm == "linf" else 2, dim=1)
    return _true_margin(logits + drop, target)


def _true_margin(logits: Tensor, target: Tensor) -> Tensor:
    label = target.unsqueeze(1)
    rival = logits.scatter(1, label, -math.inf).amax(1)
    return logits.gather(1, label).squeeze(1) - rival


def _soft_margin(logits: Tensor, target: Tensor) -> Tensor:
    # Differences first: the logarithm of K - 1 would be rounded away next to a large common shift.
    label = target.unsqueeze(1)
    leads = logits - logits.gather(1, label)
    return -leads.scatter(1, label, -math.inf).logsumexp(1)


def _check_margin(margin: Tensor) -> None:
    check_floating(margin, "margin")
    if margin.ndim != 1 or len(margin) == 0:
        raise ValueError(f"margin must have shape (N,) with N >= 1, got {tuple(margin.shape)}")
    check_finite(margin, "margin")
