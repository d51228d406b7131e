"""The optimizers' updates for many runs at once: every tensor has the runs as its first axis.

Each is that of `calibcourse.optimizers`, with a learning rate of its own for every run. They work
in place and never look at a number, so that a CUDA graph can hold them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..optimizers import SAM, Muon

Update = Callable[["StackedGroup", Sequence[Tensor], Tensor], None]


def sgd(group: "StackedGroup", gradients: Sequence[Tensor], count: Tensor) -> None:
    """θ - lr g, with momentum if asked: GD, SGD, and SAM with the gradient from uphill.

    Args:
        group: what is updated, in place.
        gradients: of its parameters, each (R, ...).
        count: 0-dim float64, the number of this update, from 1 on; not used.
    """
    momentum, decay = group.settings["momentum"], group.settings["weight_decay"]
    for parameter, gradient, memory in zip(
        group.parameters, gradients, group.memories, strict=True
    ):
        if decay:
            gradient = gradient + decay * parameter
        if momentum:
            buffer = memory["momentum_buffer"].mul_(momentum).add_(gradient)
            nesterov = group.settings.get("nesterov", False)
            gradient = gradient + momentum * buffer if nesterov else buffer
        parameter.sub_(gradient * lanes(group.lr, parameter))


def adamw(group: "StackedGroup", gradients: Sequence[Tensor], count: Tensor) -> None:
    """AdamW (arXiv 1711.05101): the gradient divided by its running size, entry by entry.

    Args:
        group: what is updated, in place.
        gradients: of its parameters, each (R, ...).
        count: 0-dim float64, the number of this update, from 1 on.
    """
    (beta1, beta2), eps = group.settings["betas"], group.settings["eps"]
    size = group.lr / (1 - beta1**count)
    correction = (1 - beta2**count).sqrt()
    shrink = 1 - group.lr * group.settings["weight_decay"]
    for parameter, gradient, memory in zip(
        group.parameters, gradients, group.memories, strict=True
    ):
        mean = memory["exp_avg"].lerp_(gradient, 1 - beta1)
        square = memory["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (square.sqrt() / correction).add_(eps)
        parameter.mul_(lanes(shrink, parameter))
        parameter.sub_(mean * lanes(size, parameter) / root)


def muon(group: "StackedGroup", gradients: Sequence[Tensor], count: Tensor) -> None:
    """Muon's step for matrices and kernels: momentum made orthogonal.

    Args:
        group: what is updated, in place.
        gradients: of its parameters, each (R, channels, ...).
        count: 0-dim float64, the number of this update, from 1 on; not used.
    """
    momentum = group.settings["momentum"]
    shrink = 1 - group.lr * group.settings["weight_decay"]
    for parameter, gradient, memory in zip(
        group.parameters, gradients, group.memories, strict=True
    ):
        gradient = gradient.flatten(2)
        buffer = memory["momentum_buffer"].lerp_(gradient, 1 - momentum)
        matrices = gradient.lerp(buffer, momentum) if group.settings["nesterov"] else buffer
        direction = orthogonal(matrices).view_as(parameter)
        longer = max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5
        parameter.mul_(lanes(shrink, parameter))
        parameter.sub_(direction * lanes(group.lr * longer, parameter))


def orthogonal(matrices: Tensor) -> Tensor:
    """The Newton-Schulz iteration of torch's Muon, on every matrix at once, in bfloat16.

    Args:
        matrices: (R, n, m), floating.

    Returns:
        (R, n, m), bfloat16: singular vectors as they were, singular values about 1.

    Example:
        >>> made = orthogonal(torch.diag(torch.tensor([3.0, 1.0]))[None]).float()
        >>> bool((made[0].diag() > 0.5).all() and (made[0].diag() < 1.5).all())
        True
    """
    settings = _by_default()
    a, b, c = settings["ns_coefficients"]
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.mT if tall else x
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    x = x / norm.clamp(min=settings["eps"])
    for _ in range(settings["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).contiguous()


@functools.cache
def _by_default() -> dict[str, Any]:
    """What `calibcourse.optimizers.Muon` leaves at torch's defaults."""
    return torch.optim.Muon([torch.zeros(1, 1)]).defaults


# What each update remembers of every parameter, by torch's names.
MEMORY: dict[Update, tuple[str, ...]] = {
    sgd: ("momentum_buffer",),
    adamw: ("exp_avg", "exp_avg_sq"),
    muon: ("momentum_buffer",),
}


class StackedGroup:
    """One parameter group of several runs' optimizers, with what they remember.

    Args:
        optimizers: of the runs, made alike but for the learning rate.
        index: which of their groups.
        parameters: the group's parameters of all runs, each (R, ...), contiguous; updated in place.

    Raises:
        TypeError: an optimizer whose runs cannot be stacked, such as BulkSGD.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        index: int,
        parameters: Sequence[Tensor],
    ):
        groups = [optimizer.param_groups[index] for optimizer in optimizers]
        self.optimizers = optimizers
        self.own = [group["params"] for group in groups]  # of every run
        self.settings: Mapping[str, Any] = groups[0]
        self.update = _update(optimizers[0], self.settings)
        self.parameters = parameters
        rates = [group["lr"] for group in groups]
        self.lr = torch.tensor(rates, dtype=torch.float64, device=parameters[0].device)
        remembers = self.update is not sgd or self.settings["momentum"]
        names = MEMORY[self.update] if remembers else ()
        self.memories = [
            {name: self._stacked(name, place) for name in names} for place in range(len(parameters))
        ]

    def hand_back(self, count: int) -> None:
        """Give every run's optimizer what it would remember after `count` updates of its own."""
        if not any(self.memories):
            return
        for run, (optimizer, own) in enumerate(zip(self.optimizers, self.own, strict=True)):
            for parameter, memory in zip(own, self.memories, strict=True):
                # Copies: a view would take all runs along into the checkpoint.
                state: dict[str, Any] = {n: value[run].clone() for n, value in memory.items()}
                if self.update is adamw:
                    by_torch = isinstance(optimizer, torch.optim.AdamW)
                    state["step"] = torch.tensor(float(count)) if by_torch else count
                optimizer.state[parameter] = state

    def _stacked(self, name: str, place: int) -> Tensor:
        """What the runs remember of one parameter, zero at first."""
        values = []
        for optimizer, own in zip(self.optimizers, self.own, strict=True):
            parameter = own[place].detach()
            matrix = parameter.flatten(1) if self.update is muon else parameter
            remembered = optimizer.state.get(own[place], {}).get(name)
            values.append(torch.zeros_like(matrix) if remembered is None else remembered)
        return torch.stack(values)


def _update(optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]) -> Update:
    if isinstance(optimizer, torch.optim.SGD | SAM):
        return sgd
    if isinstance(optimizer, torch.optim.AdamW):
        return adamw
    if isinstance(optimizer, Muon):
        return muon if "momentum" in settings else adamw
    raise TypeError(
        f"optimizers must be GD, SGD, AdamW, Muon or SAM, got {type(optimizer).__name__}: "
        "train its runs singly"
    )


def lanes(values: Tensor, like: Tensor) -> Tensor:
    """One value per run, (R,), in the dtype and with the dimensions of (R, ...)."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
