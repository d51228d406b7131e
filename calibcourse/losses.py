"""Training objectives, all called as loss(model, inputs, target) -> LossTerms.

    CrossEntropy        mean of -log p_y, with or without label smoothing
    FocalLoss           mean of -(1 - p_y)^γ log p_y
    MeanSquaredError    mean of (z - onehot(y))²
    CalMO               cross-entropy + λ_r · robust term + λ_s · smoothness term

A loss is given the model and not its logits, because CalMO needs more of the model than one forward
pass. One step of training is

    terms = loss(model, inputs, target)
    terms.total.backward()
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from ._ball import Ball, Clip, check_clip
from ._checks import (
    check_choice,
    check_floating,
    check_inputs,
    check_integer,
    check_logits_and_target,
    check_real,
    not_twice,
)
from ._conduct import (
    call_with,
    called,
    check_is_tensor,
    exact_kernels,
    input_gradient,
    plain,
    undisturbed,
    usable,
    version,
)
from .margins import NORMS, soft_margin, true_margin

WRITES = "model must not write into its inputs: let its forward begin with inputs = inputs.clone()"


@dataclass(frozen=True)
class LossTerms:
    """What a loss returns: the total to differentiate, its terms, and the clean logits.

    Attributes:
        total: scalar, the weighted sum that the optimizer minimises.
        cross_entropy: scalar, detached, in nats: the plain cross-entropy of the clean inputs.
        robust: scalar, detached: the unweighted robust term, 0 where the loss has none.
        smooth: scalar, detached: the unweighted smoothness term, 0 where the loss has none.
        logits: (N, K), detached: the model's output on the clean inputs, float32 or float64.
    """

    total: Tensor
    cross_entropy: Tensor
    robust: Tensor
    smooth: Tensor
    logits: Tensor

    def __repr__(self) -> str:
        names = ("total", "cross_entropy", "robust", "smooth")
        values = ", ".join(f"{name}={getattr(self, name).item():.4g}" for name in names)
        return f"LossTerms({values}, logits={tuple(self.logits.shape)})"


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy in nats, with optional label smoothing (Szegedy et al. 2016).

    Label smoothing moves the share α of the target mass from the true class to all K classes
    evenly: (1 - α) · CE + α · mean_k(-log p_k). With class weights w the mean is
    Σ_i w_{y_i} ℓ_i / Σ_i w_{y_i}, as torch's own. Weights move the probabilities that are best away
    from the classes' shares of the data: what is calibrated then, is another population.

    Args:
        label_smoothing: α, in [0, 1].
        weight: K numbers > 0, one per class, or a tensor (K,); None weighs all alike.
        ignore_index: a label whose samples are left out, such as -100 for unlabelled ones.

    Raises:
        ValueError, TypeError: label_smoothing outside [0, 1] or not a number, a weight that is not
            positive, ignore_index no integer. When called: inputs, labels or logits of a wrong
            shape or dtype, or not finite; weights that are not K; a batch of ignored samples only.

    Example:
        >>> CrossEntropy()(nn.Flatten(), torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
        LossTerms(total=1.099, cross_entropy=1.099, robust=0, smooth=0, logits=(4, 3))
        >>> loss, logits = CrossEntropy(weight=(1.0, 3.0)), torch.tensor([[2.0, 0], [2.0, 0]])
        >>> loss(nn.Identity(), logits, torch.tensor([0, 1])).total  # (1 · 0.127 + 3 · 2.127) / 4
        tensor(1.6269)
    """

    label_smoothing: float = 0.0
    weight: Sequence[float] | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        check_real(self.label_smoothing, "label_smoothing", 0.0, 1.0)
        if self.weight is not None:
            weight = self.weight.tolist() if isinstance(self.weight, Tensor) else self.weight
            object.__setattr__(self, "weight", tuple(weight))
            for value in self.weight:
                check_real(value, "weight", 0.0, strict=True)
        if self.ignore_index is not None:
            check_integer(self.ignore_index, "ignore_index", -(2**63))

    def __call__(self, model: nn.Module, inputs: Tensor, target: Tensor) -> LossTerms:
        """The loss of a batch, with its terms and the logits, those of ignored samples too."""
        check_inputs(inputs, integers=True)
        inputs, target = usable(inputs), usable(target)
        logits = _logits(model, inputs, target, self.ignore_index)
        given = {} if self.ignore_index is None else {"ignore_index": self.ignore_index}
        total = F.cross_entropy(
            logits,
            target,
            weight=None if self.weight is None else self._weight_of(logits),
            label_smoothing=self.label_smoothing,
            **given,
        )
        plain = not self.label_smoothing and self.weight is None
        cross_entropy = total if plain else F.cross_entropy(logits.detach(), target, **given)
        return _plain_terms(total, logits, target, cross_entropy)

    def _weight_of(self, logits: Tensor) -> Tensor:
        if len(self.weight or ()) != logits.shape[1]:
            raise ValueError(
                f"weight must have one number per class, {logits.shape[1]}, got {self.weight}"
            )
        return logits.new_tensor(self.weight)


@dataclass(frozen=True)
class FocalLoss:
    """Mean of -(1 - p_y)^γ log p_y (Lin et al. 2017, arXiv 1708.02002), in nats.

    Samples that are already right count for less. As a remedy for overconfidence: Mukhoti et al.
    2020, arXiv 2002.09437.

    Args:
        gamma: γ >= 0; 0 gives the cross-entropy.

    Raises:
        ValueError, TypeError: γ < 0 or not a number. When called: inputs, labels or logits of a
            wrong shape or dtype, or not finite.

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> FocalLoss()(nn.Identity(), logits, target).total  # 0.1192² · 0.1269
        tensor(0.0018)
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_real(self.gamma, "gamma", minimum=0.0)

    def __call__(self, model: nn.Module, inputs: Tensor, target: Tensor) -> LossTerms:
        """The loss of a batch, with its terms and the logits."""
        check_inputs(inputs, integers=True)
        inputs, target = usable(inputs), usable(target)
        logits = _logits(model, inputs, target)
        # With the soft margin s, p_y = σ(s): neither 1 - p_y nor its powers are ever formed, whose
        # derivatives are 0 · inf where p_y rounds to 1.
        margin = soft_margin(logits, target)
        damping = torch.exp(self.gamma * F.logsigmoid(-margin))
        total = (damping * -F.logsigmoid(margin)).mean()
        return _plain_terms(total, logits, target)


@dataclass(frozen=True)
class MeanSquaredError:
    """Mean over samples and classes of (z - onehot(y))², on the logits (paper Appendix E).

    Its Hessian in the logits is the constant (2/K) I per sample, so curvature does not fade as the
    fit improves (THEORY.md section 3).

    Raises:
        ValueError, TypeError: when called: inputs, labels or logits of a wrong shape or dtype, or
            not finite.

    Example:
        >>> logits, target = torch.tensor([[1.0, 0.0, 0.0, 2.0]]), torch.tensor([0])
        >>> MeanSquaredError()(nn.Identity(), logits, target).total  # (0 + 0 + 0 + 2²) / 4
        tensor(1.)
    """

    def __call__(self, model: nn.Module, inputs: Tensor, target: Tensor) -> LossTerms:
        """The loss of a batch, with its terms and the logits."""
        check_inputs(inputs, integers=True)
        inputs, target = usable(inputs), usable(target)
        logits = _logits(model, inputs, target)
        total = F.mse_loss(logits, F.one_hot(target, logits.shape[1]).to(logits))
        return _plain_terms(total, logits, target)


@dataclass(frozen=True)
class CalMO:
    """The paper's margin-aware objective (arXiv 2604.20614, Sec. 5).

        CE(x) + λ_r · mean KL(p(x) ‖ p(x_adv)) + λ_s · mean ‖∇_x m(x, y)‖₂²

    The robust term asks for the same probabilities on the whole ε-ball, x_adv being found by
    projected gradient ascent on CE from the clean input, without a random start. The smoothness
    term asks for a margin that changes slowly around x. `robust_weight=0` is the paper's "Flat",
    `smooth_weight=0` its "Rob"; a term with weight 0 is not computed, and is reported as 0.

    What the paper leaves open, and the choice here:

    - Both arguments of the KL are differentiated, as in TRADES (Zhang et al. 2019,
      arXiv 1901.08573). x_adv itself is a constant: no gradient flows through the attack.
    - The attack sees the model in the mode it is in. In train mode, BatchNorm uses the statistics
      of the batch at hand, and ∇_x sums over what a pixel does to the whole batch: this is the
      network whose gradient is taken, and its clean pass can serve the attack.
    - Only the clean pass updates running statistics: they describe clean data.
    - Inputs are in [0, 1], and ε, step size and ∇_x are in these units; x_adv is clipped to [0, 1].
      With "l2", a step spends no length on pixels that it would push out of [0, 1]. For inputs that
      are normalised outside the model, `clip` is their range, or None, and ε is in their units.

    A step on a network with forward cost 1 costs 14, against 3 for cross-entropy: the clean pass
    serves the cross-entropy, the KL, the margin gradient and the first step of the attack, and no
    attack step computes, or keeps what is needed to compute, a gradient of a parameter.

    Args:
        robust_weight: λ_r >= 0.
        smooth_weight: λ_s >= 0.
        epsilon: radius of the ball, >= 0, in input units.
        steps: number of attack steps, >= 1.
        step_size: length of one attack step, > 0, in input units.
        norm: of the ball, "linf" or "l2".
        clip: (low, high), the range of valid inputs, or None where there is none.

    Raises:
        ValueError, TypeError: an argument outside these ranges. When called: inputs, labels or
            logits of a wrong shape or dtype, or not finite; inputs outside `clip` where λ_r > 0; an
            operation without a second derivative, such as torch.cdist, where λ_s > 0.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.eye_(model.weight)
        >>> x, y = torch.tensor([[0.7, 0.2]]), torch.tensor([0])
        >>> CalMO(epsilon=0.1, steps=2, step_size=0.1)(model, x, y)  # ∇_x m = (1, -1)
        LossTerms(total=0.4965, cross_entropy=0.4741, robust=0.00477, smooth=2, logits=(1, 2))
    """

    robust_weight: float = 0.5
    smooth_weight: float = 0.01
    epsilon: float = 8 / 255
    steps: int = 3
    step_size: float = 2 / 255
    norm: str = "linf"
    clip: Clip = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_real(self.robust_weight, "robust_weight", minimum=0.0)
        check_real(self.smooth_weight, "smooth_weight", minimum=0.0)
        check_real(self.epsilon, "epsilon", minimum=0.0)
        check_integer(self.steps, "steps", 1)
        check_real(self.step_size, "step_size", minimum=0.0, strict=True)
        check_choice(self.norm, "norm", NORMS)
        if self.clip is not None:
            check_clip(self.clip)
            object.__setattr__(self, "clip", tuple(self.clip))

    @undisturbed(autocast=True)
    def __call__(self, model: nn.Module, inputs: Tensor, target: Tensor) -> LossTerms:
        """The loss of a batch, with its terms and the logits."""
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        check_floating(inputs, "inputs")
        model, inputs, target = plain(model), usable(inputs), usable(target)
        # Nothing is clipped, and no range required, where nothing is attacked.
        clip = self.clip if self.robust_weight else None
        ball = Ball(inputs.detach(), self.epsilon, self.norm, clip)
        # Both terms are built from gradients, also in validation, inside torch.no_grad().
        with torch.enable_grad(), exact_kernels(model) if self.smooth_weight else nullcontext():
            clean = inputs.detach().requires_grad_(bool(self.robust_weight or self.smooth_weight))
            logits = _logits(model, clean, target)
        cross_entropy = F.cross_entropy(logits, target)
        robust = smooth = torch.zeros_like(cross_entropy)
        if self.smooth_weight:
            smooth = _squared_margin_gradient(logits, target, clean)
            _check_twice(model, smooth, clean)
        if self.robust_weight:
            try:
                robust = self._robust_term(model, ball, target, clean, logits)
            except RuntimeError as error:
                known = "Jitted" in str(error) or "does not require grad" in str(error)
                if not known and not isinstance(error, CheckpointError):
                    raise
                raise ValueError(
                    "model must run with other tensors in place of its parameters (by "
                    "torch.func.functional_call) where robust_weight > 0; scripted modules, "
                    "gradients that it takes in its own parameters, and activation checkpoints "
                    "cannot: pass the module without them"
                ) from error
        total = cross_entropy + self.robust_weight * robust + self.smooth_weight * smooth
        terms = (cross_entropy, robust, smooth, logits)
        return LossTerms(total, *(term.detach() for term in terms))

    def _robust_term(
        self, model: nn.Module, ball: Ball, target: Tensor, clean: Tensor, logits: Tensor
    ) -> Tensor:
        """Mean KL(p(x) ‖ p(x_adv)); logits are those of clean, with their graph."""
        # Copies, so that no pass but the clean one moves a running statistic.
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        # Detached, so that the attack keeps nothing for gradients of parameters.
        frozen = buffers | {name: weight.detach() for name, weight in model.named_parameters()}

        gradient = _cross_entropy_gradient(logits, target, clean, retain_graph=True)
        point = ball.ascend(ball.centre, gradient, self.step_size)
        for _ in range(self.steps - 1):
            with torch.enable_grad():
                point.requires_grad_()
                gradient = _cross_entropy_gradient(
                    _logits(partial(call_with, frozen, model), point, target), target, point
                )
            point = ball.ascend(point, gradient, self.step_size)

        adversarial = _logits(partial(call_with, buffers, model), point, target)
        return F.kl_div(
            adversarial.log_softmax(1),
            logits.log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )


def _logits(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    target: Tensor,
    ignore_index: int | None = None,
) -> Tensor:
    """The model's logits: checked, and never narrower than float32, also under autocast."""
    logits = _called(model, inputs)
    if ignore_index is not None and isinstance(target, Tensor):
        ignored = target == ignore_index
        if ignored.all():
            raise ValueError(
                f"target must hold a label other than ignore_index, got {ignore_index} alone"
            )
        target = target.masked_fill(ignored, 0)
    check_logits_and_target(logits, target, "model(inputs)")
    return _widened(logits)


def _called(model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """What the model says, a tensor, the inputs untouched."""
    before = version(inputs)
    try:
        logits = called(model, inputs)
    except RuntimeError as error:
        if "a leaf Variable that requires grad" not in str(error):
            raise
        raise ValueError(WRITES) from error
    if version(inputs) != before:
        raise ValueError(WRITES)
    check_is_tensor(logits)
    return logits


def _widened(values: Tensor) -> Tensor:
    return values.float() if values.dtype.itemsize < 4 else values


def _plain_terms(
    total: Tensor, logits: Tensor, target: Tensor, cross_entropy: Tensor | None = None
) -> LossTerms:
    """The terms of a loss that is a function of the clean logits alone."""
    logits, zero = logits.detach(), torch.zeros_like(total)
    if cross_entropy is None:
        cross_entropy = F.cross_entropy(logits, target)
    return LossTerms(total, cross_entropy.detach(), zero, zero, logits)


@torch.enable_grad()
def _cross_entropy_gradient(
    logits: Tensor, target: Tensor, point: Tensor, retain_graph: bool = False
) -> Tensor:
    """Gradient of the summed cross-entropy with respect to the inputs.

    The sum and not the mean, and the cross-entropy as -log σ(s) of the soft margin: the attack uses
    only the direction, which survives in float16 and where p_y rounds to 1.
    """
    total = -F.logsigmoid(soft_margin(logits, target)).sum()
    return input_gradient(total, point, retain_graph=retain_graph)


def _check_twice(model: nn.Module, smooth: Tensor, clean: Tensor) -> None:
    """Require a derivative of the smoothness term, tried when a model is seen for the first time.

    Else `backward` would fail in torch's own words, in the caller's line. The derivative is the one
    in the inputs, so that no hook of a parameter takes it for one of training.
    """
    if model in _differentiable_twice or not smooth.requires_grad:
        return
    try:
        torch.autograd.grad(smooth, clean, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "memory" in str(error):
            raise
        raise not_twice(error) from error
    if any(node.name() == "torch::autograd::Error" for node in _nodes(smooth.grad_fn)):
        raise not_twice("a function marked once_differentiable")
    _differentiable_twice.add(model)


def _nodes(root: torch.autograd.graph.Node | None) -> set[torch.autograd.graph.Node]:
    """All nodes of a graph."""
    found, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [before for before, _ in node.next_functions]
    return found


_differentiable_twice: WeakSet[nn.Module] = WeakSet()


def _squared_margin_gradient(logits: Tensor, target: Tensor, clean: Tensor) -> Tensor:
    """Mean ‖∇_x m‖₂², differentiable in the parameters unless gradients are switched off."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        gradient = input_gradient(
            true_margin(logits, target).sum(),
            clean,
            retain_graph=True,
            create_graph=differentiable,
        )
    return _widened(gradient).flatten(1).square().sum(1).mean()
