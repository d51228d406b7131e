"""Adversarial inputs: projected gradient ascent, and the robust margin it measures.

The robust margin m_ε = inf over ‖δ‖ <= ε of m(x + δ, y) cannot be computed for a network. An attack
finds one perturbation, hence an *upper* bound m_att on m_ε, and the chain ECE <= (K-1)Q <=
(K-1)Q_att <= (K-1)Q_ε stays true for what was measured (THEORY.md section 2).

Gradients are taken with respect to the inputs alone: none is ever computed for a parameter.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._ball import Ball, Clip, per_sample
from ._checks import (
    check_choice,
    check_deterministic_model,
    check_integer,
    check_logits,
    check_real,
    check_target,
)
from ._conduct import Model, input_gradient, undisturbed, usable, well_behaved
from .margins import soft_margin, true_margin

# What an attack climbs. Cross-entropy is softplus(-s) of the soft margin s, so it grows with -s and
# has the same direction of steepest ascent. But the gradient of -s does not vanish where the model
# is sure; that of cross-entropy does, in float32, because p_y rounds to 1 from a margin of 17 on.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda logits, target: -soft_margin(logits, target),
    "margin": lambda logits, target: -true_margin(logits, target),
}


@dataclass(frozen=True)
class RobustMargin:
    """What an attack on the margin found, for N samples.

    Attributes:
        margin: (N,), in logit units: an upper bound on m_ε, never above the clean margin.
        adversarial_inputs: like the inputs: where that margin is reached.
    """

    margin: Tensor
    adversarial_inputs: Tensor

    def __repr__(self) -> str:
        mean, low = self.margin.mean().item(), self.margin.min().item()
        return f"RobustMargin(n={len(self.margin)}, mean margin={mean:.4g}, min margin={low:.4g})"


@undisturbed(autocast=True)
def pgd(
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    epsilon: float,
    norm: str = "linf",
    steps: int = 10,
    step_size: float | None = None,
    objective: str = "cross_entropy",
    clip: Clip = (0.0, 1.0),
) -> Tensor:
    """Adversarial inputs by projected gradient ascent (Madry et al. 2018, arXiv 1706.06083).

    Starts at the clean input, uses no randomness, and returns the *last* iterate: the attack to
    train on. One step of size epsilon is the fast gradient sign method (Goodfellow et al. 2015,
    arXiv 1412.6572). To measure, take `robust_margin`, which keeps the best iterate.

    Args:
        model: maps inputs to logits (N, K). Its mode, parameters and their gradients are left
            untouched.
        inputs: (N, ...), inside `clip`.
        target: (N,), int64 labels in 0..K-1.
        epsilon: radius of the ball, >= 0, in input units.
        norm: "linf" or "l2".
        steps: number of gradient steps, >= 1; each is one forward and one backward pass.
        step_size: length of a step in input units, >= 0; None for 2.5 epsilon / steps.
        objective: "cross_entropy", or "margin" for -m.
        clip: (low, high), the range of valid inputs, or None where there is none.

    Returns:
        Like inputs: inside the ball and the range, up to the rounding of x + δ.

    Raises:
        ValueError, TypeError: ε < 0, steps < 1, step_size < 0, an unknown norm or objective, a
            malformed range, inputs outside it, NaN or inf logits, a model that draws random
            numbers or couples samples, wrong shapes or dtypes.

    Example:
        >>> x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> pgd(nn.Identity(), x, y, epsilon=0.1)
        tensor([[0.4000, 0.6000]])
    """
    inputs, target = usable(inputs), usable(target)
    ball = Ball(inputs, epsilon, norm, clip)
    check_choice(objective, "objective", OBJECTIVES)
    _check_steps(steps, step_size)
    model = _checked(model, inputs, target)
    size = 2.5 * epsilon / steps if step_size is None else step_size
    point = inputs.detach()
    for _ in range(steps):
        gradient, _ = _climb(model, point, lambda z: OBJECTIVES[objective](z, target))
        point = ball.ascend(point, gradient, size)
    return point


@undisturbed()
def robust_margin(
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    epsilon: float,
    norm: str = "linf",
    steps: int = 10,
    multi_targeted: bool = False,
    step_size: float | None = None,
    clip: Clip = (0.0, 1.0),
    batch_size: int = 256,
) -> RobustMargin:
    """Robust margin m_ε by attack: the lowest true margin found in the ball, an upper bound on m_ε.

    The margin is the least of K-1 gaps z_y - z_j, and its gradient sees only the smallest of them.
    An attack that follows this gradient stays with the rival class that is nearest at the clean
    input, even where another class wins at the border: on linear models it may miss half of the
    drop. So this attack first *scouts*: one full step of length epsilon towards one rival after
    another, `steps` of them if there are as many, which for a linear model is each rival's exact
    optimum. The first order predicts each gap there, exactly for a linear model. Where more than
    one rival is predicted to take off half of the largest drop or more, these points are evaluated.
    The best is then *refined* on the margin by two steps for every three of `steps`, of lengths
    falling by one factor from epsilon to epsilon / steps.

    For a linear model without a range the result is exact with `multi_targeted`, and by default up
    to steps + 1 classes; with more classes an unscouted rival may be missed, which matters where
    the ball is larger than the gaps.

    The clean input is always a candidate, and the best point ever seen is kept. No randomness.

    Args:
        model: maps inputs to logits (N, K). Its mode, parameters and their gradients are left
            untouched.
        inputs: (N, ...), inside `clip`.
        target: (N,), int64 labels in 0..K-1.
        epsilon: radius of the ball, >= 0, in input units; 0 gives the clean margin.
        norm: "linf" or "l2".
        steps: most rivals to scout, >= 1; a third fewer steps refine. With 10 and 10 classes 16
            backward and 9 forward passes, and forward ones for the points that are evaluated, one
            or two a sample where the ball is small and five where it is large.
        multi_targeted: refine each of the K-1 rivals by itself, by `steps` steps: (K-1)(steps + 1)
            backward passes.
        step_size: length of every refining step in input units, >= 0; None for falling lengths.
        clip: (low, high), the range of valid inputs, or None where there is none.
        batch_size: samples attacked at a time, >= 1; bounds the memory.

    Returns:
        RobustMargin(margin (N,), adversarial_inputs like inputs), inside the ball and the range up
        to the rounding of x + δ.

    Raises:
        ValueError, TypeError: ε < 0, steps < 1, step_size < 0, batch_size < 1, an unknown norm, a
            malformed range, inputs outside it, NaN or inf logits, a model that draws random
            numbers or couples samples, wrong shapes or dtypes.

    Example:
        >>> x, y = torch.tensor([[0.5, 0.2]]), torch.tensor([0])
        >>> found = robust_margin(nn.Identity(), x, y, epsilon=0.1)  # 0.3 - 2 * 0.1
        >>> found.margin, found.adversarial_inputs
        (tensor([0.1000]), tensor([[0.4000, 0.3000]]))
    """
    inputs, target = usable(inputs), usable(target)
    ball = Ball(inputs, epsilon, norm, clip)
    _check_steps(steps, step_size)
    batch_size = check_integer(batch_size, "batch_size", 1)
    model = _checked(model, inputs, target)
    if epsilon == 0:
        return RobustMargin(_margin_at(model, inputs, target), inputs.detach().clone())
    attack = _attack_every_rival if multi_targeted else _attack
    parts = [
        attack(model, Ball(centre, epsilon, norm, clip), label, steps, step_size)
        for centre, label in zip(
            ball.centre.detach().split(batch_size), target.split(batch_size), strict=True
        )
    ]
    return RobustMargin(
        torch.cat([part.margin for part in parts]),
        torch.cat([part.point for part in parts]),
    )


class _Best:
    """The lowest margin seen so far for every sample, and where it was seen."""

    def __init__(self, point: Tensor, margin: Tensor):
        self.point, self.margin = point.clone(), margin

    def offer(self, point: Tensor, margin: Tensor) -> None:
        better = margin < self.margin
        self.margin = torch.where(better, margin, self.margin)
        # Weights of 0 and 1: one point or the other to the last bit, in a fourth of where's time.
        self.point.lerp_(point, per_sample(better.to(point.dtype), point))


def _attack(model, ball: Ball, target: Tensor, steps: int, step_size: float | None) -> _Best:
    """Scout the nearest rivals; evaluate what competes for the best point, and refine that."""
    scouts = _Scouts(model, ball, target)
    n_scouts = min(scouts.n_rivals, steps)
    points = ball.centre.new_empty(n_scouts, *ball.centre.shape)
    gaps = scouts.clean_margin.new_empty(n_scouts, len(target))
    for rank in range(n_scouts):
        points[rank], gaps[rank], _ = scouts.send()
    lowest = gaps.amin(0)
    close = gaps - lowest <= (scouts.clean_margin - lowest) / 2
    gaps.masked_fill_(~close, math.inf)
    contested = (close & (close.sum(0) > 1)).nonzero()
    for pairs in contested.split(len(target)) if len(contested) else ():
        scout, sample = pairs.unbind(1)
        gaps[scout, sample] = _margin_at(model, points[scout, sample], target[sample])
    start = points[gaps.argmin(0), torch.arange(len(target), device=target.device)]
    best = _Best(ball.centre, scouts.clean_margin)
    sizes = _refining_sizes(ball.epsilon, steps, step_size, steps - steps // 3)
    _refine(model, ball, target, start, sizes, best)
    return best


def _attack_every_rival(
    model, ball: Ball, target: Tensor, steps: int, step_size: float | None
) -> _Best:
    """Scout and refine each rival class by itself, each on its own gap z_y - z_j."""
    scouts = _Scouts(model, ball, target)
    best = _Best(ball.centre, scouts.clean_margin)
    sizes = _refining_sizes(ball.epsilon, steps, step_size, steps)
    for _ in range(scouts.n_rivals):
        point, _, rival = scouts.send()
        _refine(model, ball, target, point, sizes, best, rival)
    return best


class _Scouts:
    """Full steps from the clean input, each towards a rival class not yet tried by the sample.

    All steps start at one point, so one forward graph serves every rival.
    """

    def __init__(self, model: nn.Module, ball: Ball, target: Tensor):
        self.ball = ball
        with torch.enable_grad():
            self.start = ball.centre.clone().requires_grad_()
            self.gaps = _gaps(model(self.start), target)
        self.untried = self.gaps.detach().clone()
        self.clean_margin = self.untried.amin(1)
        self.n_rivals = self.gaps.shape[1] - 1

    def send(self) -> tuple[Tensor, Tensor, Tensor]:
        """Step towards the rival nearest at the clean input: (points, gaps predicted, rivals)."""
        rival = self.untried.argmin(1, keepdim=True)
        self.untried.scatter_(1, rival, math.inf)
        with torch.enable_grad():
            gap = self.gaps.gather(1, rival).squeeze(1)
            climb = -gap.sum()
        gradient = input_gradient(climb, self.start, retain_graph=True)
        point = self.ball.ascend(self.ball.centre, gradient, self.ball.epsilon)
        drop = (point - self.ball.centre).mul_(gradient).flatten(1).sum(1)
        return point, gap.detach() - drop, rival


def _refine(
    model: nn.Module,
    ball: Ball,
    target: Tensor,
    point: Tensor,
    sizes: Sequence[float],
    best: _Best,
    rival: Tensor | None = None,
) -> None:
    """Descend on the margin, or the gap to a rival, from a point; offer every iterate to best."""

    def aim(logits: Tensor) -> Tensor:
        gaps = _gaps(logits, target)
        return -(gaps.amin(1) if rival is None else gaps.gather(1, rival).squeeze(1))

    for size in sizes:
        gradient, logits = _climb(model, point, aim)
        best.offer(point, _margin(logits, target))
        point = ball.ascend(point, gradient, size)
    best.offer(point, _margin_at(model, point, target))


def _refining_sizes(epsilon: float, steps: int, step_size: float | None, count: int) -> list[float]:
    """Lengths falling by one factor from epsilon to epsilon / steps, or one constant length."""
    if step_size is not None:
        return [step_size] * count
    return [epsilon * steps ** (-step / max(count - 1, 1)) for step in range(count)]


def _climb(
    model: nn.Module, point: Tensor, objective: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The gradient of every sample's objective with respect to its input, and the logits."""
    with torch.enable_grad():
        point = point.detach().requires_grad_()
        logits = model(point)
        gradient = input_gradient(objective(logits).sum(), point)
    return gradient, logits.detach()


def _margin_at(model: nn.Module, point: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        return _margin(model(point), target)


def _margin(logits: Tensor, target: Tensor) -> Tensor:
    """The true margin, of labels that have been checked."""
    return _gaps(logits, target).amin(1)


def _gaps(logits: Tensor, target: Tensor) -> Tensor:
    """Gaps z_y - z_j to every class j, inf at j = y; the true margin is the least of them."""
    check_logits(logits, "model(inputs)")
    label = target.unsqueeze(1)
    return (logits.gather(1, label) - logits).scatter(1, label, math.inf)


def _checked(model: Model, inputs: Tensor, target: Tensor) -> Model:
    """The model to attack, known to treat samples one by one; the labels fit its logits."""
    check_deterministic_model(model)
    model = well_behaved(model, inputs)
    with torch.no_grad():
        logits = model(inputs[:1])
    check_logits(logits, "model(inputs)")
    check_target(target, len(inputs), logits.shape[1], device=logits.device)
    return model


def _check_steps(steps: int, step_size: float | None) -> None:
    check_integer(steps, "steps", 1)
    if step_size is not None:
        check_real(step_size, "step_size", minimum=0.0)
