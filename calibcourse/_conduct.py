"""How a model behaves when it is called, tried out instead of guessed from the types of its layers.

Whatever is differentiated here belongs to one sample: "its" Jacobian, margin or robust margin. That
asks three things of a model. Called again it says the same (no dropout, no noise); what it says of
one sample depends on that sample alone (no statistics of the batch); and it leaves its inputs and
its own buffers as they were. A few samples tell, in three forward passes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

FEW = 3  # samples to try: two to compare with, and one to leave out
MANY, TIMES = 32, 8  # samples and repetitions where random numbers were drawn: a path may be rare
AUTOCAST_DEVICES = ("cpu", "cuda", "mps")

Model = Callable[[Tensor], Tensor]


class OnCopies(nn.Module):
    """A model that writes into its inputs, given copies of them."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's output, the inputs untouched."""
        return self.model(inputs.clone())


@contextmanager
def undisturbed(*, autocast: bool = False) -> Iterator[None]:
    """Without inference mode, and without autocast, which rounds products to bfloat16.

    Args:
        autocast: whether it may stay on: what trains is the caller's to round.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())  # as it was
        for device in () if autocast else AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def exact_kernels(model: object = None) -> Iterator[None]:
    """Attention and recurrence by kernels that can be differentiated twice; the fused ones cannot.

    Args:
        model: where it has recurrent layers, cuDNN is left out too; it alone lacks their second
            derivative, and refuses the first in eval mode.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    recurrent = torch.cuda.is_available() and any(
        isinstance(module, nn.RNNBase) for module in _modules(model)
    )
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if recurrent:
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def version(tensor: Tensor) -> int:
    """How often torch has seen the tensor change in place; one of inference mode is not counted."""
    return 0 if tensor.is_inference() else tensor._version


def usable(values: Tensor) -> Tensor:
    """The tensor, or a copy where it was made under inference mode: no graph may hold such ones."""
    return values.clone() if values.is_inference() else values


def plain(model: Model) -> Model:
    """The module inside a compiled one: compiled code has no second derivative."""
    return getattr(model, "_orig_mod", model) if isinstance(model, nn.Module) else model


def well_behaved(model: Model, inputs: Tensor) -> Model:
    """Require that a model treats samples one by one and without chance; the model to be called.

    Args:
        model: any callable from inputs to logits; a compiled module is replaced by the plain one.
        inputs: (N, ...), N >= 1, valid for the model. For N = 1 nothing is left out.

    Returns:
        The model, or `OnCopies` of it where it writes into its inputs.

    Raises:
        TypeError: the result is no tensor.
        ValueError: chance, samples that depend on each other, buffers that move; with the remedy.
    """
    model = plain(model)
    check_no_inference(model)
    with torch.no_grad(), exact_kernels(model), _random_state_restored(inputs):
        before = {name: buffer.clone() for name, buffer in _buffers(model)}
        state, few = _random_state(inputs), _few(inputs)
        before_call = version(few)
        whole = model(few)
        writes = version(few) != before_call
        random = any(map(_differ, state, _random_state(inputs)))
        moved = [name for name, buffer in _buffers(model) if _differ(before[name], buffer)]
        for name, buffer in _buffers(model) if moved else ():
            buffer.copy_(before[name])
        if moved:
            raise ValueError(
                f"model must not change its buffers when it is called, but {moved[0]!r} moves: "
                "call model.eval() first"
            )
        check_is_tensor(whole)
        if whole.ndim == 2 and len(whole) == len(few) and torch.isfinite(whole).all():
            _check_repeats(model, _few(inputs), whole)
            for _ in range(TIMES if random else 0):
                many = inputs[torch.arange(MANY, device=inputs.device) % len(inputs)]
                _check_repeats(model, many, model(many.clone()))
            if len(whole) > 1:
                _check_one_by_one(model, _few(inputs), whole)
    return OnCopies(model) if writes else model


def check_no_inference(model: Model) -> None:
    """Require parameters that may stand in a graph."""
    for name, parameter in model.named_parameters() if isinstance(model, nn.Module) else ():
        if parameter.is_inference():
            raise ValueError(
                f"model must not be built under torch.inference_mode(), which leaves {name!r} "
                "without derivatives: build and load it outside"
            )


def writes_into(model: Model, inputs: Tensor) -> bool:
    """Whether a model overwrites what it is given, tried on copies of a few samples."""
    few = _few(inputs)
    before = version(few)
    with torch.no_grad(), _random_state_restored(inputs):
        model(few)
    return version(few) != before


def in_float64(model: nn.Module, inputs: Tensor) -> Tensor:
    """The output of a float64 copy of the model, itself left alone."""
    tensors = {
        name: value.detach().double() if value.is_floating_point() else value
        for name, value in [*model.named_parameters(), *model.named_buffers()]
    }
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    return torch.func.functional_call(model, tensors, (inputs,)).double()


def check_is_tensor(result: object) -> None:
    """Require a tensor of a model's result, not a dict or tuple that holds one."""
    if not isinstance(result, Tensor):
        raise TypeError(
            f"model(inputs) must be a torch.Tensor of logits, got {type(result).__name__}; wrap "
            "the model: calibcourse.LogitsOf(model, lambda output: output.logits), or whatever "
            "picks the logits"
        )


def _check_repeats(model: Model, samples: Tensor, output: Tensor) -> None:
    """Require the same output once more."""
    if apart := _apart(model, output, model(samples.clone()), samples, samples):
        raise ValueError(
            "model must say the same when it is called again with the same inputs, but two "
            f"outputs are {apart:.1g} apart: functional dropout, DropPath or noise is at work; "
            "call model.eval() first (in a module of your own pass self.training on)"
        )


def _check_one_by_one(model: Model, samples: Tensor, output: Tensor) -> None:
    """Require that the outputs of all but the last sample do not change when that one is absent."""
    rest = samples[:-1]
    try:
        alone = model(rest.clone())
    except Exception as error:  # whatever a model raises that cannot do with fewer samples
        raise ValueError(
            f"model must treat samples one by one, but fails on a part of the inputs: {error}"
        ) from error
    if apart := _apart(model, output, alone, samples, rest):
        raise ValueError(
            "model must treat samples one by one, but the logits of a sample are "
            f"{apart:.1g} apart with and without the rest of its batch: statistics of the batch or "
            "attention along it (batch_first=False) are at work; call model.eval() first, and keep "
            "samples on axis 0"
        )


def _apart(model: Model, first: Tensor, second: Tensor, samples: Tensor, others: Tensor) -> float:
    """How far the outputs of `samples` and of their first few, `others`, are; 0 for rounding.

    Rounding may be large beside logits that are small differences of large numbers. But in float64
    it is a billion times smaller, which chance and statistics are not.
    """
    apart = _distance(first[: len(others)], second)
    if apart and isinstance(model, nn.Module):
        try:
            first, second = (in_float64(model, part.clone()) for part in (samples, others))
        except Exception:  # no float64 on the device, or in the model
            return apart
        return _distance(first[: len(others)], second)
    return apart


def _distance(first: Tensor, second: Tensor) -> float:
    """Their largest difference; 0 up to half of the digits of the largest entry."""
    if first.shape != second.shape:
        return math.inf
    largest = float((first - second).abs().max())
    slack = torch.finfo(first.dtype).eps ** 0.5 * float(first.abs().max())
    return 0.0 if largest <= slack else largest


def spread(n_samples: int, device: torch.device) -> Tensor:
    """The numbers of a few samples, from the first to the last."""
    numbers = torch.linspace(0, n_samples - 1, min(FEW, n_samples), dtype=torch.float64)
    return numbers.round().long().to(device)


def _few(inputs: Tensor) -> Tensor:
    return inputs[spread(len(inputs), inputs.device)]  # a copy


def _modules(model: object) -> Iterator[nn.Module]:
    return model.modules() if isinstance(model, nn.Module) else iter(())


def _buffers(model: object) -> list[tuple[str, Tensor]]:
    return list(model.named_buffers()) if isinstance(model, nn.Module) else []


def _differ(first: Tensor, second: Tensor) -> bool:
    if first.is_floating_point():
        first, second = first.nan_to_num(), second.nan_to_num()
    return not torch.equal(first, second)


def _random_state(inputs: Tensor) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if inputs.device.type == "cuda":
        states.append(torch.cuda.get_rng_state(inputs.device))
    return states


@contextmanager
def _random_state_restored(inputs: Tensor) -> Iterator[None]:
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
