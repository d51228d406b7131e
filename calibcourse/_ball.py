"""The inputs that an attack may use, and the step of steepest ascent among them."""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ._checks import check_choice, check_inputs, check_real, value_range
from .margins import NORMS

Clip = tuple[float, float] | None


@dataclass(frozen=True)
class Ball:
    """The inputs an attack may use: within epsilon of the clean ones, inside the range of pixels.

    Args:
        centre: (N, ...), the clean inputs: one ball around each.
        epsilon: radius, >= 0, in input units.
        norm: "linf" or "l2", over all values of one sample.
        clip: (low, high), the range of valid inputs, or None where there is none.

    Raises:
        ValueError, TypeError: ε < 0, an unknown norm, a malformed range, clean inputs that are not
            finite or lie outside the range.

    Example:
        >>> ball = Ball(torch.tensor([[0.0, 0.5]]), epsilon=0.1)
        >>> ball.ascend(ball.centre, torch.tensor([[-3.0, 2.0]]), step_size=0.2)
        tensor([[0.0000, 0.6000]])
    """

    centre: Tensor = field(repr=False)
    epsilon: float
    norm: str = "linf"
    clip: Clip = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_inputs(self.centre)
        check_real(self.epsilon, "epsilon", minimum=0.0)
        check_choice(self.norm, "norm", NORMS)
        if self.clip is not None:
            check_clip(self.clip, self.centre)

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor] | Clip:
        """Lowest and highest value of every pixel."""
        if self.norm == "l2":
            return self.clip
        # The clean input lies in the range, so the range cuts a part of the ball off, never all.
        low, high = self.centre - self.epsilon, self.centre + self.epsilon
        return (low, high) if self.clip is None else (low.clamp(*self.clip), high.clamp(*self.clip))

    @torch.no_grad()
    def project(self, point: Tensor) -> Tensor:
        """Bring points (N, ...) back into the ball and the range, up to the rounding of x + δ."""
        if self.norm == "l2":
            offset = point - self.centre
            length = _length(offset)
            shrink = torch.where(length > self.epsilon, self.epsilon / length, 1.0)
            point = torch.addcmul(self.centre, offset, shrink)
        # Clipping brings every pixel nearer to the clean one, so it cannot leave the ball.
        return point if self.bounds is None else point.clamp(*self.bounds)

    @torch.no_grad()
    def ascend(self, point: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        """Step from points of the ball along the steepest ascent, and project.

        The direction is sign(g) in L∞ and g / ‖g‖ in L2. A sample whose gradient is zero everywhere
        (saturated units) moves along a fixed pattern of signs instead, so that it may wake up.
        """
        dead = _largest(gradient) == 0
        if not dead.is_cpu or dead.any():  # asking a device takes longer than doing it
            gradient = torch.where(dead, _signs_like(gradient), gradient)
        if self.norm == "linf":
            return self.project(gradient.sign().mul_(step_size).add_(point))
        if self.clip is not None:
            # Spend no length on pixels at the border, where the step would be cut off.
            low, high = self.clip
            sign = gradient.sign()
            room = (sign * (high - low)).add_(point).clamp_(low, high).sub_(point).mul_(sign)
            gradient = room.clamp_(min=0.0).sign_().mul_(gradient)  # a fifth of where's time
        # Scale first: the square of a saturated network's gradient, 1e-30, is 0 in float32.
        largest = _largest(gradient)
        gradient = gradient / torch.where(largest > 0, largest, 1.0)
        length = _length(gradient).clamp_min(1.0)  # 1 or more, unless all are 0
        return self.project(torch.addcmul(point, gradient, step_size / length))


def check_clip(clip: tuple[float, float], inputs: Tensor | None = None) -> None:
    """Require a range (low, high) with low < high that holds every input given."""
    if not isinstance(clip, tuple | list) or len(clip) != 2:
        raise TypeError(f"clip must be a pair (low, high) or None, got {clip!r}")
    for bound in clip:
        check_real(bound, "clip")
    low, high = clip
    if low >= high:
        raise ValueError(f"clip must have low < high, got {clip!r}")
    if inputs is None:
        return
    smallest, largest = value_range(inputs)
    if smallest < low or largest > high:
        raise ValueError(
            f"inputs must lie inside clip={clip!r}, got values from {smallest:.6g} to "
            f"{largest:.6g}; pass the right range, or clip=None where there is none"
        )


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, ..., 1), so that it broadcasts over the values of one sample."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _length(offset: Tensor) -> Tensor:
    """L2 length of every sample, shaped (N, 1, ..., 1)."""
    return per_sample(offset.flatten(1).norm(dim=1), offset)


def _largest(values: Tensor) -> Tensor:
    """Largest absolute value of every sample, shaped (N, 1, ..., 1)."""
    return per_sample(values.flatten(1).abs().amax(1), values)


def _signs_like(gradient: Tensor) -> Tensor:
    """A fixed pattern of signs, the same for every sample and in every call."""
    return _signs(gradient.shape[1:], gradient.dtype, gradient.device).expand_as(gradient)


@lru_cache(maxsize=8)  # a copy to a device is a wait for it
def _signs(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(0, 2, shape, generator=generator, device="cpu") * 2 - 1).to(device, dtype)
