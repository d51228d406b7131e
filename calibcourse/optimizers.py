"""Six optimizers behind one call, optimizer.step(closure).

| name | update of the parameters θ with the gradient g | from |
|---|---|---|
| gd, sgd | θ - lr g, with momentum if asked; gd is sgd on the full batch | torch |
| adamw | g divided by its running size, entry by entry (arXiv 1711.05101) | torch |
| muon | matrices: momentum made orthogonal, all singular values about 1 | pytorch-optimizer |
| sam | θ - lr g(θ + rho g/‖g‖) (arXiv 2010.01412) | pytorch-optimizer |
| bulk_sgd | θ - lr (g - V Vᵀg), V the steepest directions of the loss (arXiv 2405.16002) | here |

No optimizer decays weights unless asked: decay would move the margins that the course measures.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_optimizer
import torch
from torch import Tensor, nn

from ._checks import check_choice, check_integer, check_real
from .curvature import GaussNewton, Hessian, top_eigenpairs

# Relative residual of BulkSGD's eigenvectors. Between refreshes they turn by more than this.
SUBSPACE_TOLERANCE = 1e-2


def make_optimizer(name: str, model: nn.Module, lr: float, **options: Any) -> torch.optim.Optimizer:
    """An optimizer for all trainable parameters of a model.

    Args:
        name: "gd", "sgd", "adamw", "muon", "sam" or "bulk_sgd".
        model: the module to train.
        lr: learning rate, > 0.
        **options: by name, with their defaults:

            - gd: weight_decay=0
            - sgd: momentum=0, nesterov=False, weight_decay=0
            - adamw: betas=(0.9, 0.999), eps=1e-8, weight_decay=0
            - muon: momentum=0.95, nesterov=True, weight_decay=0, adamw_lr=3e-4. Parameters with two
              or more dimensions (a convolution kernel counts as channels x rest) take Muon's step
              with `lr`; the others, biases and norms, take AdamW's with `adamw_lr`.
            - sam: rho=0.05, momentum=0, weight_decay=0. Two gradients a step; the second leaves
              BatchNorm's running statistics alone.
            - bulk_sgd: inputs (required), target=None, directions=1, refresh=20,
              loss="cross_entropy". The gradient is projected off the top `directions` eigenvectors
              of the Gauss-Newton matrix at `inputs`, or of the Hessian if `target` is given too,
              which are computed anew every `refresh` steps.

    Schedulers of torch.optim.lr_scheduler work on all of them; OneCycleLR needs
    cycle_momentum=False where there is no momentum to cycle (muon, bulk_sgd).

    Returns:
        An object with step(closure), state_dict() and load_state_dict(); closure zeroes gradients,
        computes the loss, calls backward and returns the loss. step returns the loss before the
        update.

    Raises:
        ValueError, TypeError: unknown name or option (the error lists the choices), a value out of
            range, or a model without trainable parameters.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> nn.init.ones_(model.weight).tolist()
        [[1.0, 1.0]]
        >>> def closure():
        ...     model.zero_grad()
        ...     loss = model.weight.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> make_optimizer("sgd", model, lr=0.25).step(closure).item()
        2.0
        >>> model.weight.tolist()
        [[0.5, 0.5]]
    """
    check_choice(name, "name", OPTIMIZERS)
    check_real(lr, "lr", 0.0, strict=True)
    if not _trainable(model):
        raise ValueError("model must have a trainable parameter, got none")
    build = OPTIMIZERS[name]
    choices = dict(list(inspect.signature(build).parameters.items())[2:])
    for option in options:
        check_choice(option, f"an option of {name!r}", choices)
    for option, parameter in choices.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"{option} must be given to {name!r}")
    return build(model, lr, **options)


def _gd(model: nn.Module, lr: float, weight_decay: float = 0.0) -> torch.optim.SGD:
    return _sgd(model, lr, weight_decay=weight_decay)


def _sgd(
    model: nn.Module,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> torch.optim.SGD:
    return torch.optim.SGD(
        _trainable(model), lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
    )


def _adamw(
    model: nn.Module,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        _trainable(model), lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay
    )


class _Whole:
    """Optimizers that copy and pickle whole: torch keeps state and groups only, and no model."""

    def __getstate__(self) -> dict[str, Any]:
        # A scheduler's wrapper of `step` is bound to the original.
        return {name: value for name, value in vars(self).items() if name != "step"}


class Muon(_Whole, pytorch_optimizer.Muon):
    """pytorch-optimizer's Muon, which loses its settings in a copy, as one that keeps them."""


def _muon(
    model: nn.Module,
    lr: float,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    adamw_lr: float = 3e-4,
) -> Muon:
    parameters = _trainable(model)
    matrices = [p for p in parameters if p.ndim >= 2]
    others = [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "use_muon": True}, {"params": others, "use_muon": False}]
    return Muon(
        [group for group in groups if group["params"]],
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        adamw_lr=adamw_lr,
        adamw_wd=weight_decay,
    )


class SAM(_Whole, pytorch_optimizer.SAM):
    """Sharpness-aware minimisation over SGD, called like any other optimizer.

    pytorch-optimizer's SAM wants the first gradient before step() and lets the second pass update
    BatchNorm's running statistics at the perturbed weights; here step does both passes, and the
    statistics see the first only.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        rho: float = 0.05,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ):
        check_real(rho, "rho", 0.0)
        self.model = model
        super().__init__(
            _trainable(model),
            torch.optim.SGD,
            rho=rho,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
        )

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One update; closure is called twice. Returns the loss at the unperturbed weights."""
        with torch.enable_grad():
            loss = closure()
        self.first_step(zero_grad=True)
        try:
            with _running_statistics_frozen(self.model), torch.enable_grad():
                closure()
        except BaseException:  # an interrupt too must not leave the perturbed weights behind
            self._step_back()
            raise
        self.second_step()
        return loss

    @torch.no_grad()
    def _step_back(self) -> None:
        for parameter, state in self.state.items():
            if "old_p" in state:
                parameter.copy_(state.pop("old_p"))


@contextmanager
def _running_statistics_frozen(model: nn.Module) -> Iterator[None]:
    """Let normalisation layers in train mode use a batch's statistics without remembering them."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    active = [m for m in norms if m.training and m.track_running_stats]
    momenta = [module.momentum for module in active]
    for module in active:
        module.track_running_stats = False
        # InstanceNorm moves its statistics all the same, by this share of the new ones.
        if isinstance(module, nn.modules.instancenorm._InstanceNorm):
            module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum in zip(active, momenta, strict=True):
            module.track_running_stats, module.momentum = True, momentum


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class BulkSGD(_Whole, torch.optim.Optimizer):
    """SGD in the bulk: the gradient without its part along the steepest directions of the loss.

    θ ← θ - lr (g - V Vᵀ g), V the top eigenvectors of the curvature on the whole training set
    (arXiv 2405.16002). What keeps SGD from sharpening is its bouncing along V; without it the
    sharpness may grow without bound.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        inputs: Tensor,
        target: Tensor | None = None,
        directions: int = 1,
        refresh: int = 20,
        loss: str = "cross_entropy",
    ):
        check_integer(directions, "directions", 1)
        check_integer(refresh, "refresh", 1)
        super().__init__(
            _trainable(model), {"lr": lr, "directions": directions, "refresh": refresh}
        )
        self.model, self.inputs, self.target, self.loss = model, inputs, target, loss
        # Beside the parameters' state, so that state_dict() holds it.
        self.state["bulk"] = {"steps": 0, "subspace": None}

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One update. Returns the loss before it."""
        with torch.enable_grad():
            loss = closure()
        group, bulk = self.param_groups[0], self.state["bulk"]
        parameters = [p for p in group["params"] if p.requires_grad]
        size, subspace = sum(p.numel() for p in parameters), bulk["subspace"]
        if subspace is not None and subspace.shape[1] != size:  # some were frozen meanwhile
            subspace = None
        if subspace is None or bulk["steps"] % group["refresh"] == 0:
            subspace = bulk["subspace"] = self._steepest(group["directions"], subspace)
        bulk["steps"] += 1
        gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
        gradient = torch.cat([part.flatten() for part in gradients])
        gradient -= (subspace @ gradient) @ subspace
        pieces = gradient.split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.sub_(piece.view_as(parameter), alpha=group["lr"])
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused after the first: the steepest directions are those of all parameters together."""
        if self.param_groups:
            raise ValueError("bulk_sgd must have one group of parameters, got a second")
        super().add_param_group(param_group)

    def _steepest(self, count: int, previous: Tensor | None) -> Tensor:
        """The top eigenvectors as rows (count, d), found from the previous ones.

        Of the network in eval mode: with dropout or a batch's statistics it would be another one at
        every product.
        """
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            if self.target is None:
                operator = GaussNewton(self.model, self.inputs, self.loss)
            else:
                operator = Hessian(self.model, self.inputs, self.target, self.loss)
            pairs = top_eigenpairs(operator, count, v0=previous, tol=SUBSPACE_TOLERANCE)
        finally:
            for module, training in modes.items():
                module.training = training
        return torch.stack([pair.vector for pair in pairs])


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "gd": _gd,
    "sgd": _sgd,
    "adamw": _adamw,
    "muon": _muon,
    "sam": SAM,
    "bulk_sgd": BulkSGD,
}
