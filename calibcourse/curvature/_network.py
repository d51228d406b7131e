"""What curvature needs of a network: its trainable parameters as one vector, J v and Jᵀ u.

Everything here differentiates with `torch.autograd.grad`, so no `.grad` field is ever written.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import GradientEdge

from .._checks import (
    check_deterministic_model,
    check_finite_parameters,
    check_inputs,
    check_logits,
    not_twice,
)
from .._conduct import (
    check_fits,
    check_no_inference,
    exact_kernels,
    in_float64,
    plain,
    usable,
    well_behaved,
)
from .._devices import has_float64

GRAPH_BYTES = 2**27  # what the graph of one batch may hold; memory peaks at about 4 times that
UNSEEN_BYTES = 2**20  # taken for a sample's graph where torch.func inside lets nobody look
LOGIT_ERROR = 2e-6  # relative error of a probability that rounded logits may cause


Parameters = dict[str, nn.Parameter]


def prepared(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, Tensor, Parameters]:
    """The model to call, inputs that a graph can hold and the trainable parameters, all checked."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}: the derivative is one "
            "in its parameters, so pass the module itself"
        )
    check_deterministic_model(model)
    model = cast(nn.Module, plain(model))
    check_no_inference(model)
    check_finite_parameters(model)
    parameters = trainable_parameters(model)
    inputs = inputs_for(model, inputs)
    ready = cast(nn.Module, well_behaved(model, inputs))
    return ready, inputs, parameters if ready is model else trainable_parameters(ready)


def inputs_for(model: nn.Module, inputs: Tensor) -> Tensor:
    """The inputs as a graph can hold them, known to fit the model."""
    check_inputs(inputs, integers=True)
    check_fits(model, inputs)
    return usable(inputs)


def trainable_parameters(model: nn.Module) -> Parameters:
    """The parameters that require a gradient, by name, of one dtype and on one device."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("model must have at least one parameter with requires_grad=True, got none")
    _check_gradients_are_derivatives(model, parameters)
    first = next(iter(parameters.values()))
    for name, parameter in parameters.items():
        if (parameter.dtype, parameter.device) != (first.dtype, first.device):
            raise TypeError(
                "model must have trainable parameters of one dtype on one device, got "
                f"{first.dtype} on {first.device} and {parameter.dtype} on {parameter.device} "
                f"in {name!r}"
            )
        if not parameter.is_floating_point():
            raise TypeError(f"model must have real parameters, got {parameter.dtype} in {name!r}")
    return parameters


def _check_gradients_are_derivatives(model: nn.Module, parameters: Parameters) -> None:
    """Require that nothing changes a gradient on its way: hooks of parameters, Embedding's scale.

    A hook that only looks on gives nothing back.
    """
    for name, parameter in parameters.items():
        for hook in (parameter._backward_hooks or {}).values():
            if hook(torch.zeros_like(parameter, requires_grad=False)) is not None:
                raise ValueError(
                    f"model must have no hook that changes the gradient of {name!r}, which is no "
                    "derivative then: take it away (its handle's remove()), or measure "
                    "copy.deepcopy(model), which has none"
                )
    for name, module in model.named_modules():
        if getattr(module, "scale_grad_by_freq", False):
            raise ValueError(
                f"model must not scale its gradients, which are no derivatives then: set "
                f"scale_grad_by_freq=False in the {type(module).__name__} {name!r}"
            )


def evaluate(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's logits, checked to be finite and of shape (N, K)."""
    with exact_kernels(model):
        logits = model(inputs)
    check_logits(logits, "model(inputs)")
    if len(logits) != len(inputs):
        raise ValueError(
            f"model(inputs) must have one row per sample, shape ({len(inputs)}, K), "
            f"got {tuple(logits.shape)}"
        )
    return logits


def precise_logits(model: nn.Module, inputs: Tensor, logits: Tensor) -> Tensor:
    """The logits for use in a softmax: float64, and computed in float64 where rounding would show.

    A logit z is rounded by about |z| times the machine epsilon, and e^z inherits that as a
    *relative* error: in float32 with |z| near 200, 1e-5. No formula downstream can repair it, so
    large logits are computed once more in float64, without a graph.
    """
    logits = logits.detach()
    if not has_float64(logits.device):
        return logits
    largest = float(logits.abs().max())
    if largest * torch.finfo(logits.dtype).eps <= LOGIT_ERROR:
        return logits.double()
    try:
        with torch.no_grad(), exact_kernels(model):
            precise = in_float64(model, inputs)
        if precise.dtype == torch.float64:
            return precise
        why = f"it casts its logits to {precise.dtype}"
    except RuntimeError as error:  # the model itself casts to its own dtype
        why = str(error)
    warnings.warn(
        f"the model does not run in float64 ({why}); with logits up to {largest:.0f} in "
        f"{logits.dtype}, curvature carries a relative error of about "
        f"{largest * torch.finfo(logits.dtype).eps:.0e}",
        RuntimeWarning,
        stacklevel=2,
    )
    return logits.double()


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One vector (d,) from tensors in the order of the parameters."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Views of a vector (d,) in the shapes of the parameters."""
    parts = vector.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


def try_one_sample(model: nn.Module, inputs: Tensor) -> tuple[int, int]:
    """K, and the bytes that autograd keeps per sample for one backward pass, from the first one."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = tensor.numel() * tensor.element_size()
        return tensor

    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            logits = evaluate(model, inputs[:1])
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
        kept = {0: UNSEEN_BYTES}
        with torch.enable_grad():
            logits = evaluate(model, inputs[:1])
    if not logits.requires_grad:
        raise ValueError("model(inputs) must depend on a trainable parameter, got a constant")
    return logits.shape[1], max(1, sum(kept.values()))


class Linearization:
    """A network at one point and one batch, ready for any number of products with J and Jᵀ.

    u ↦ Jᵀu is linear, so the derivative of ⟨Jᵀu, v⟩ in u is J v: one backward pass through the
    graph of a backward pass. Both graphs are built here, once; a product then costs as much as the
    arithmetic of J v or Jᵀ u alone, where forward-mode differentiation runs the network again.

    Args:
        model: maps (N, ...) to logits (N, K).
        parameters: the tensors to differentiate in.
        inputs: (N, ...).
        slope: gives u0 (N, K), at which Jᵀu is built, from the logits: the slope of a loss whose
            gradient and Hessian are wanted. None means a u0 of zeros, enough for J and Jᵀ.
        bend: (logits, w) -> the derivative of u0 in the logits times w, symmetric.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[Tensor],
        inputs: Tensor,
        slope: Callable[[Tensor], Tensor] | None = None,
        bend: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self._parameters = list(parameters)
        with torch.enable_grad():
            self._logits = evaluate(model, inputs)
            dtypes = self._logits.dtype, self._parameters[0].dtype
            self.narrowest = min(dtypes, key=lambda dtype: dtype.itemsize)
            self.logits = precise_logits(model, inputs, self._logits)
            start = torch.zeros_like(self._logits) if slope is None else slope(self.logits)
            self._cotangent = start.to(self._logits.dtype).detach().requires_grad_()
            if bend is not None:
                bent = _Bent.apply(self._logits, self.logits, self._cotangent, bend)  # type: ignore[no-untyped-call]
                self._cotangent = cast(Tensor, bent)
            products = torch.autograd.grad(
                self._logits,
                self._parameters,
                self._cotangent,
                create_graph=True,
                allow_unused=True,
            )
        if any(part is not None and part.layout != torch.strided for part in products):
            raise ValueError("model must have dense gradients: build its Embedding without sparse")
        self._used = [index for index, part in enumerate(products) if part is not None]
        self._vjp_of_start = [products[index] for index in self._used]

    def vjp(self, cotangent: Tensor | None = None) -> Tensor:
        """Jᵀu summed over the batch, (d,), for u of shape (N, K); None means u0, at no cost."""
        if cotangent is None:
            known = dict(zip(self._used, self._vjp_of_start, strict=True))
            parts = [
                known[index].detach() if index in known else torch.zeros_like(parameter)
                for index, parameter in enumerate(self._parameters)
            ]
            return flatten(parts)
        cotangent = cotangent.to(self._logits.dtype)
        return flatten(gradients(self._logits, self._parameters, cotangent))

    def jvp(self, vector: Tensor) -> Tensor:
        """J v, (N, K), for v of shape (d,)."""
        return self._differentiate([self._cotangent], vector)[0]

    def hessian_product(self, vector: Tensor) -> Tensor:
        """H v, (d,), of the loss that u0 is the slope of: Jᵀ·bend·J v and what J's own change adds.

        One backward pass brings both: at the logits they are added up and go on together.
        """
        return flatten(self._differentiate(self._parameters, vector))

    def _differentiate(self, variables: list[Tensor], vector: Tensor) -> list[Tensor]:
        tangents = unflatten(vector, self._parameters)
        try:
            return gradients(
                self._vjp_of_start, variables, [tangents[index] for index in self._used]
            )
        except RuntimeError as error:
            if "memory" in str(error):
                raise
            raise not_twice(error) from error


class _Bent(torch.autograd.Function):
    """u0 as a function of the logits whose derivative is known in closed form."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, precise: Tensor, cotangent: Tensor, bend: Callable[..., Tensor]
    ) -> Tensor:
        ctx.save_for_backward(precise)
        ctx.bend = bend
        return cotangent.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, ...]:
        (logits,) = ctx.saved_tensors
        return ctx.bend(logits, w).to(w.dtype), None, None, None


def gradients(
    outputs: Tensor | Sequence[Tensor],
    variables: Sequence[Tensor] | Sequence[GradientEdge],
    cotangents: Tensor | Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Cotangents times derivatives, zeros where there are none; the graph stays for the next."""
    found = torch.autograd.grad(
        outputs, variables, cotangents, retain_graph=True, materialize_grads=True
    )
    # The zeros that torch 2.9 fills in require gradients themselves.
    return [gradient.detach().to_dense() for gradient in found]
