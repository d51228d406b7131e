"""Six optimizers behind one call, optimizer.step(closure).

| name | update of the parameters θ with the gradient g | from |
|---|---|---|
| gd, sgd | θ - lr g, with momentum if asked; gd is sgd on the full batch | torch |
| adamw | g divided by its running size, entry by entry (arXiv 1711.05101) | torch |
| muon | matrices: momentum made orthogonal, all singular values about 1 | torch |
| sam | θ - lr g(θ + rho g/‖g‖) (arXiv 2010.01412) | here |
| bulk_sgd | θ - lr (g - V Vᵀg), V the steepest directions of the loss (arXiv 2405.16002) | here |

No optimizer decays weights unless asked: decay would move the margins that the course measures.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_choice, check_integer, check_real, check_trainable
from ._conduct import modes_restored
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
    lr = check_real(lr, "lr", 0.0, strict=True)
    check_trainable(model)
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


def _by_torch(
    kind: type[torch.optim.Optimizer],
    group: dict[str, Any],
    parameters: list[Tensor],
    states: list[dict[str, Any]],
) -> None:
    """One step of torch's own optimizer with a group's settings; what it remembers is in states."""
    peer = kind([{**group, "params": parameters}])
    peer.state.update(zip(parameters, states, strict=True))
    peer.step()


class Muon(_Whole, torch.optim.Optimizer):
    """torch's Muon for matrices and kernels, AdamW for biases and norms."""

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        adamw_lr: float = 3e-4,
    ):
        momentum = check_real(momentum, "momentum", 0.0, 1.0)
        weight_decay = check_real(weight_decay, "weight_decay", 0.0)
        adamw_lr = check_real(adamw_lr, "adamw_lr", 0.0)
        parameters = _trainable(model)
        matrices = {
            "params": [p for p in parameters if p.ndim >= 2],
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
        }
        others = {
            "params": [p for p in parameters if p.ndim < 2],
            "lr": adamw_lr,
            "betas": (0.9, 0.95),
            "eps": 1e-10,
        }
        groups = [group for group in (matrices, others) if group["params"]]
        super().__init__(groups, {"weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One update. Returns the loss before it."""
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            states = [self.state[p] for p in parameters]
            if "momentum" in group:
                matrices = [_as_matrix(p) for p in parameters]
                _by_torch(torch.optim.Muon, group, matrices, states)
                for parameter, matrix in zip(parameters, matrices, strict=True):
                    if matrix.data_ptr() != parameter.data_ptr():  # channels last: no such view
                        parameter.copy_(matrix.view_as(parameter))
            else:
                for parameter, state in zip(parameters, states, strict=True):
                    _adamw_step(parameter, state, group)
        return loss


def _as_matrix(parameter: Tensor) -> Tensor:
    """A kernel and its gradient as channels x rest, which is all that torch's Muon takes."""
    matrix = parameter.detach().flatten(1)
    matrix.grad = parameter.grad.flatten(1)
    return matrix


def _adamw_step(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """AdamW, rounded as in the recorded runs.

    torch's own differs in the last digit, and the bfloat16 of Muon's matrices makes 1e-3 of that
    within five steps.
    """
    if not state:
        state["step"] = 0
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    state["step"] += 1
    lr, (beta1, beta2), gradient = group["lr"], group["betas"], parameter.grad
    mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
    square = state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2)
    root = square.sqrt().div_((1 - beta2 ** state["step"]) ** 0.5).add_(group["eps"])
    parameter.mul_(1 - lr * group["weight_decay"])
    parameter.addcdiv_(mean, root, value=-lr / (1 - beta1 ** state["step"]))


class SAM(_Whole, torch.optim.Optimizer):
    """Sharpness-aware minimisation (arXiv 2010.01412): SGD, with the gradient from a point uphill.

    θ ← θ - lr g(θ + rho g/‖g‖). The gradient of a first pass leads to a point at distance rho,
    where a sharp loss is high; the gradient of the second pass, there, moves the weights.
    BatchNorm's running statistics see the first pass only.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        rho: float = 0.05,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ):
        rho = check_real(rho, "rho", 0.0)
        momentum = check_real(momentum, "momentum", 0.0)
        weight_decay = check_real(weight_decay, "weight_decay", 0.0)
        settings = {"lr": lr, "rho": rho, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(_trainable(model), settings)
        self.model = model

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One update; closure is called twice. Returns the loss at the unperturbed weights."""
        with torch.enable_grad():
            loss = closure()
        with self._uphill(), _running_statistics_frozen(self.model), torch.enable_grad():
            closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            _by_torch(torch.optim.SGD, group, parameters, [self.state[p] for p in parameters])
        return loss

    @contextmanager
    def _uphill(self) -> Iterator[None]:
        """The weights at θ + rho g/‖g‖, without gradients; back at θ whatever happens."""
        groups = self.param_groups
        moved = [(p, g["rho"]) for g in groups for p in g["params"] if p.grad is not None]
        norms = [p.grad.norm().to(moved[0][0].device) for p, _ in moved] or [
            torch.zeros((), device="cpu")
        ]
        norm = torch.stack(norms).square().sum().sqrt() + 1e-12  # of the whole gradient
        before = [p.clone() for p, _ in moved]
        try:
            for parameter, rho in moved:
                parameter.add_(parameter.grad * (rho / norm).to(parameter))
            self.zero_grad()
            yield
        finally:
            for (parameter, _), values in zip(moved, before, strict=True):
                parameter.copy_(values)


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
        directions = check_integer(directions, "directions", 1)
        refresh = check_integer(refresh, "refresh", 1)
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
        subspace = subspace.to(gradient)  # the model may have moved since
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
        place = next(self.model.parameters()).device
        self.inputs = self.inputs.to(place)
        self.target = None if self.target is None else self.target.to(place)
        with modes_restored(self.model):
            self.model.eval()
            if self.target is None:
                operator = GaussNewton(self.model, self.inputs, self.loss)
            else:
                operator = Hessian(self.model, self.inputs, self.target, self.loss)
            pairs = top_eigenpairs(operator, count, v0=previous, tol=SUBSPACE_TOLERANCE)
        return torch.stack([pair.vector for pair in pairs])


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "gd": _gd,
    "sgd": _sgd,
    "adamw": _adamw,
    "muon": Muon,
    "sam": SAM,
    "bulk_sgd": BulkSGD,
}
