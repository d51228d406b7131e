"""What a CalMO step costs: in cross-entropy steps, and beside the straightforward implementation.

A step is the loss and its backward pass, batch 128, without the optimizer. Run it with
`python tests/benchmarks/bench_losses.py [threads]`; threads default to 2.
"""

import sys
from collections.abc import Callable

import torch
from _harness import compare, print_header
from reference_calmo import reference_calmo
from torch import Tensor, nn

from calibcourse.data import load_dataset
from calibcourse.losses import CalMO, CrossEntropy
from calibcourse.models import resnet20, small_cnn


def gradient_of(total: Callable[[], Tensor], model: nn.Module) -> Callable[[], Tensor]:
    """A step: the total's gradient in all parameters, as one vector with the total in front."""

    def step() -> Tensor:
        model.zero_grad()
        value = total()
        value.backward()
        return torch.cat([value.detach().view(1)] + [p.grad.flatten() for p in model.parameters()])

    return step


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Of the totals and gradients, relative to the largest number among them."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def compare_losses(model: nn.Module, inputs: Tensor, target: Tensor, rounds: int) -> None:
    def step(loss) -> Callable[[], Tensor]:
        return gradient_of(lambda: loss(model, inputs, target).total, model)

    def reference(**options) -> Callable[[], Tensor]:
        return gradient_of(lambda: reference_calmo(model, inputs, target, **options)[0], model)

    print("ours = cross-entropy, peers = cost in cross-entropy steps (another loss: no agreement)")
    losses = {
        "CalMO": CalMO(),
        "Flat": CalMO(robust_weight=0),
        "Rob": CalMO(smooth_weight=0),
    }
    compare(
        step(CrossEntropy()),
        {name: step(loss) for name, loss in losses.items()},
        rounds,
        lambda *_: float("nan"),
    )
    print("ours = CalMO")
    compare(
        step(CalMO()),
        {
            "straightforward": reference(),
            "straightforward, attack on inputs only": reference(input_gradients_only=True),
        },
        rounds,
        largest_difference,
    )


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    print_header("Losses")
    batch = load_dataset("fashion_mnist_small").train.head(128)
    print("small CNN, 1 x 28 x 28, batch 128")
    compare_losses(small_cnn(), batch.inputs, batch.target, rounds=41)
    print("ResNet-20, 3 x 32 x 32, batch 128")
    colour = torch.rand(128, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    compare_losses(resnet20(), colour, batch.target, rounds=7)


if __name__ == "__main__":
    main()
