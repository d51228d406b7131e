"""What a CalMO step costs: in cross-entropy steps, and beside the straightforward implementation.

A step is the loss and its backward pass, batch 128, without the optimizer. Promised on two cores:
at most 5.8 cross-entropy steps on ResNet-20 and 6.5 on the small CNN; at least 1.3 times faster
than the straightforward implementation (reference_calmo.py), with the same numbers to 1e-6.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from _harness import Comparison, Peer, Setting, script
from _subjects import images
from reference_calmo import reference_calmo
from torch import Tensor, nn

from calibcourse.losses import CalMO, CrossEntropy
from calibcourse.models import resnet20, small_cnn


@dataclass(frozen=True)
class Batch:
    """A network and what one step sees."""

    title: str
    model: nn.Module
    inputs: Tensor
    target: Tensor

    def __str__(self) -> str:
        return f"{self.title}, batch {len(self.target)}"


def on_small_cnn(setting: Setting) -> Batch:
    batch = images(setting, 128)
    return Batch("small CNN, 1 × 28 × 28", small_cnn().to(setting.device), *vars(batch).values())


def on_resnet20(setting: Setting) -> Batch:
    target = images(setting, 128).target[: setting.pick(128, 4)]
    generator = torch.Generator().manual_seed(0)
    colour = torch.rand(len(target), 3, 32, 32, generator=generator).to(setting.device)
    return Batch("ResNet-20, 3 × 32 × 32", resnet20().to(setting.device), colour, target)


def gradient_of(total: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
    """A step: the total's gradient in all parameters, as one vector with the total in front."""

    def step(batch: Batch) -> Tensor:
        batch.model.zero_grad()
        value = total(batch)
        value.backward()
        gradients = [parameter.grad.flatten() for parameter in batch.model.parameters()]
        return torch.cat([value.detach().view(1), *gradients])

    return step


def step_of(loss) -> Callable[[Batch], Tensor]:
    return gradient_of(lambda batch: loss(batch.model, batch.inputs, batch.target).total)


def straightforward(**options) -> Callable[[Batch], Tensor]:
    return gradient_of(
        lambda batch: reference_calmo(batch.model, batch.inputs, batch.target, **options)[0]
    )


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def cross_entropy_steps(at_most: float | None) -> Peer:
    target = None if at_most is None else 1 / at_most
    return Peer("one cross-entropy step", step_of(CrossEntropy()), target=target, unit=True)


def calmo(name: str, subject: Callable[[Setting], Batch], at_most: float, rounds: int):
    return Comparison(
        name=name,
        what="CalMO step",
        subject=subject,
        size=str,
        ours=step_of(CalMO()),
        peers=(
            # Gradients of a deep network in float32, summed in another order.
            Peer("straightforward", straightforward(), bound=1e-5, target=1.3),
            Peer(
                "straightforward, attack on inputs only",
                straightforward(input_gradients_only=True),
                bound=1e-5,
            ),
            cross_entropy_steps(at_most),
        ),
        apart=largest_difference,
        measure="largest difference of total and gradient, relative to the largest entry",
        rounds=rounds,
    )


def term(name: str, what: str, loss: CalMO) -> Comparison:
    return Comparison(
        name=name,
        what=what,
        subject=on_small_cnn,
        size=str,
        ours=step_of(loss),
        peers=(cross_entropy_steps(None),),
        apart=largest_difference,
        measure="other work",
        rounds=21,
    )


PARTS = (
    calmo("calmo_small_cnn", on_small_cnn, 6.5, rounds=21),
    term("smooth_step", "CalMO step, smoothness term alone", CalMO(robust_weight=0)),
    term("robust_step", "CalMO step, robust term alone", CalMO(smooth_weight=0)),
    calmo("calmo_resnet20", on_resnet20, 5.8, rounds=7),
)

if __name__ == "__main__":
    script(__doc__, PARTS)
