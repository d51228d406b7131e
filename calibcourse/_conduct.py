"""How a model behaves when it is called, tried out instead of guessed from the types of its layers.

Whatever is differentiated here belongs to one sample: "its" Jacobian, margin or robust margin. That
asks three things of a model. Called again it says the same (no dropout, no noise); what it says of
one sample depends on that sample alone (no statistics of the batch); and it leaves its inputs and
its own buffers as they were. A few samples tell, in four forward passes.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

FEW = 3  # samples to try: two to compare with, and one to leave out
MANY, TIMES = 32, 8  # samples and repetitions where random numbers were drawn: a path may be rare
AUTOCAST_DEVICES = ("cpu", "cuda", "mps")

# What may round float32: how to read, how to set, and the value that rounds nothing.
SWITCHES: tuple[tuple[Callable, Callable, object], ...] = (
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    (
        lambda: torch.backends.cudnn.allow_tf32,
        lambda value: setattr(torch.backends.cudnn, "allow_tf32", value),
        False,
    ),
)
PARTS = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,
    torch.backends.cudnn.rnn,
    torch.backends.mkldnn.matmul,
    torch.backends.mkldnn.conv,
    torch.backends.mkldnn.rnn,
)

Model = Callable[[Tensor], Tensor]
Pair = tuple[Tensor, Tensor]


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
    """Without inference mode, and without what rounds products to bfloat16 or TF32.

    Args:
        autocast: whether it may stay on, and TF32 too: what trains is the caller's to round.
    """
    with ExitStack() as stack:
        if not autocast:
            stack.enter_context(full_precision())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())  # as it was
        for device in () if autocast else AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """Products and convolutions of float32 in float32; TF32 and bfloat16 keep three digits.

    Torch has two sets of switches, and raises where one is read after the other was used. So the
    older ones, which most callers use, are set where they can be read, and the newer ones finish.
    """
    old = [(get, put, full, _read(get)) for get, put, full in SWITCHES]
    new = [(part, part.fp32_precision) for part in PARTS]
    try:
        for _, put, full, value in old:
            if value not in (None, full):
                put(full)
        for part in PARTS:
            if part.fp32_precision not in ("ieee", "none"):
                part.fp32_precision = "ieee"
        yield
    finally:
        for get, put, _, value in old:
            if value is not None and _read(get) != value:
                put(value)
        for part, value in new:
            if part.fp32_precision != value:
                part.fp32_precision = value


def _read(get: Callable[[], object]) -> object:
    try:
        return get()
    except RuntimeError:  # the newer switches were used
        return None


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
    inference = isinstance(values, Tensor) and values.is_inference()  # what it is, is checked later
    return values.clone() if inference else values


def plain(model: Model) -> Model:
    """The module inside a compiled or parallel one, neither of which can be taken apart."""
    if isinstance(model, nn.DataParallel):
        model = model.module
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
    with torch.no_grad(), exact_kernels(model), random_state_restored():
        before = {name: buffer.clone() for name, buffer in _buffers(model)}
        weights = _versions(model)
        state, few = random_state(), _few(inputs)
        before_call = version(few)
        whole = called(model, few)
        writes = version(few) != before_call
        random = any(map(_differ, state, random_state()))
        moved = [name for name, buffer in _buffers(model) if _differ(before[name], buffer)]
        for name, buffer in _buffers(model) if moved else ():
            buffer.copy_(before[name])
        moved += [name for name, count in _versions(model).items() if count != weights[name]]
        if moved:
            raise ValueError(
                "model must not change its buffers or parameters when it is called, but "
                f"{moved[0]!r} moves: call model.eval() first, or take that out of its forward (an "
                "Embedding's max_norm does it)"
            )
        check_is_tensor(whole)
        if whole.ndim == 2 and len(whole) == len(few) and torch.isfinite(whole).all():
            _check_repeats(model, _few(inputs), whole)
            for _ in range(TIMES if random else 0):
                many = inputs[torch.arange(MANY, device=inputs.device) % len(inputs)]
                _check_repeats(model, many, model(many.clone()))
            if len(whole) > 1:
                _check_one_by_one(model, inputs)
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
    with torch.no_grad(), random_state_restored():
        model(few)
    return version(few) != before


def in_float64(model: nn.Module, inputs: Tensor) -> Tensor:
    """The output of a float64 copy of the model, itself left alone; narrower if it casts itself."""
    tensors = {
        name: value.detach().double() if value.is_floating_point() else value
        for name, value in [*model.named_parameters(), *model.named_buffers()]
    }
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    return call_with(tensors, model, inputs)


def call_with(tensors: Mapping[str, Tensor], model: nn.Module, inputs: Tensor) -> Tensor:
    """The output of a model with other tensors in place of its parameters and buffers.

    Args:
        tensors: by the names of `named_parameters` and `named_buffers`; those left out stay.
        model: itself left alone. `torch.func.functional_call` ties what is tied by itself, but in a
            module that stands in the model under two names it then leaves the new tensors behind.
        inputs: of the model.
    """
    own = dict([*model.named_parameters(), *model.named_buffers()])
    new = {id(own[name]): tensor for name, tensor in tensors.items()}
    places = {}
    for prefix, module in model.named_modules():  # each once
        here = [module.named_parameters(prefix, recurse=False, remove_duplicate=False)]
        here += [module.named_buffers(prefix, recurse=False, remove_duplicate=False)]
        places |= {name: new[id(t)] for part in here for name, t in part if id(t) in new}
    result = torch.func.functional_call(model, places, (inputs,), tie_weights=False)
    return cast(Tensor, result)


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

    def twice(run: Model) -> list[Pair]:
        return [(output if run is model else run(samples.clone()), run(samples.clone()))]

    if apart := _apart(model, twice):
        raise ValueError(
            "model must say the same when it is called again with the same inputs, but two "
            f"outputs are {apart:.1g} apart: functional dropout, DropPath or noise is at work; "
            "call model.eval() first (in a module of your own pass self.training on)"
        )


def _check_one_by_one(model: Model, inputs: Tensor) -> None:
    """Require the same output of a sample alone and among others, and of all in another order.

    The sample is next to last: along an axis of time what comes before matters and what comes after
    does not, and experts of limited capacity drop whoever comes late.
    """
    count = len(inputs)
    others = spread(count, torch.device("cpu"), MANY - FEW)[: max(0, count - FEW)]
    last = torch.tensor([0, count // 2, count - 1], device="cpu")
    samples = inputs[torch.cat([others, last]).to(inputs.device)]
    one = samples[-2:-1]
    try:
        alone = model(one.clone())
    except Exception as error:  # whatever a model raises that cannot do with fewer samples
        raise ValueError(
            "model must treat samples one by one, but fails on one sample: call model.eval() "
            f"first, and let normalisation keep running statistics ({error})"
        ) from error

    def differently(run: Model) -> list[Pair]:
        output = run(samples.clone())
        by_itself = alone if run is model else run(one.clone())
        return [(output[-2:-1], by_itself), (output, run(samples.flip(0)).flip(0))]

    if apart := _apart(model, differently):
        raise ValueError(
            "model must treat samples one by one, but the logits of a sample are "
            f"{apart:.1g} apart alone and among others, or in another order: statistics of the "
            "batch, experts of limited capacity, or attention or recurrence along the batch "
            "(batch_first=False), are at work; call model.eval() first, and keep samples on axis 0"
        )


def _apart(model: Model, outputs: Callable[[Model], list[Pair]]) -> float:
    """How far outputs that should be the same are; 0 for rounding.

    Rounding may be large beside logits that are small differences of large numbers. But in float64
    it is a billion times smaller, which chance and statistics are not.
    """
    pairs = outputs(model)
    apart = _distance(pairs, pairs[0][0].dtype)
    if apart and isinstance(model, nn.Module):
        for dtype in {p.dtype for p in model.parameters() if p.is_floating_point()}:
            if not _distance(pairs, dtype):  # parts of it are in lower precision
                return 0.0
        try:
            pairs = outputs(partial(in_float64, model))
            return _distance(pairs, pairs[0][0].dtype)
        except Exception:  # no float64 on the device, or in the model
            return apart
    return apart


def _distance(pairs: list[Pair], dtype: torch.dtype) -> float:
    """The largest difference; 0 up to half of a dtype's digits of the largest entry, and of NaN."""
    if any(first.shape != second.shape for first, second in pairs):
        return math.inf
    ends = [end for a, b in pairs for end in ((a - b).abs().max(), a.abs().max())]
    values, slack = torch.stack(ends).tolist(), torch.finfo(dtype).eps ** 0.5
    each = zip(values[::2], values[1::2], strict=True)
    return max(far if far > slack * size else 0.0 for far, size in each)


def spread(n_samples: int, device: torch.device, count: int = FEW) -> Tensor:
    """The numbers of a few samples, from the first to the last."""
    count = min(count, n_samples)
    numbers = torch.linspace(0, n_samples - 1, count, dtype=torch.float64, device="cpu")
    return numbers.round().long().to(device)


def _few(inputs: Tensor) -> Tensor:
    return inputs[spread(len(inputs), inputs.device)]  # a copy


def called(model: Model, inputs: Tensor) -> Tensor:
    """model(inputs); where their device or dtype is another, an error that says so."""
    try:
        return model(inputs)
    except RuntimeError as error:
        check_fits(model, inputs)
        if inputs.is_floating_point():
            raise
        raise TypeError(
            f"inputs must have a floating dtype for this model, got {inputs.dtype} ({error}); "
            "integers are for models that begin with an embedding"
        ) from error


def check_fits(model: Model, inputs: Tensor) -> None:
    """Require inputs on a device of the model's, and of one of its dtypes where they are floats."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    devices = [p.device for p in parameters]
    dtypes = [p.dtype for p in parameters if p.is_floating_point()]
    if devices and inputs.device not in devices:
        raise ValueError(
            f"inputs must be on the model's device {devices[0]}, got {inputs.device}: move one"
        )
    if dtypes and inputs.is_floating_point() and inputs.dtype not in dtypes:
        raise TypeError(
            f"inputs must have the model's dtype {dtypes[0]}, got {inputs.dtype}: convert one"
        )


def input_gradient(total: Tensor, point: Tensor, **options: bool) -> Tensor:
    """Derivative of a total of margins or losses in the inputs, which it must depend on."""
    try:
        found = torch.autograd.grad(total, point, allow_unused=True, **options)[0]
    except RuntimeError as error:
        if "use_reentrant" not in str(error) and "does not require grad" not in str(error):
            raise
        found, why = None, str(error)
    else:
        why = "its logits are constant"
    if found is None:
        raise ValueError(
            "model(inputs) must be differentiable in the inputs, and is not: torch.no_grad() or "
            "detach() inside, or an activation checkpoint without use_reentrant=False? "
            f"({shortened(why)})"
        )
    return found


def shortened(text: str) -> str:
    """The first sentence of what torch says."""
    return text.split(". ")[0]


def _versions(model: object) -> dict[str, int]:
    named = model.named_parameters() if isinstance(model, nn.Module) else ()
    return {name: version(parameter) for name, parameter in named}


def _modules(model: object) -> Iterator[nn.Module]:
    return model.modules() if isinstance(model, nn.Module) else iter(())


def _buffers(model: object) -> list[tuple[str, Tensor]]:
    return list(model.named_buffers()) if isinstance(model, nn.Module) else []


def _differ(first: Tensor, second: Tensor) -> bool:
    if first.is_floating_point():
        first, second = first.nan_to_num(), second.nan_to_num()
    return not torch.equal(first, second)


def random_state() -> list[Tensor]:
    """torch's random state: the CPU's, then that of every CUDA device in use, or of MPS."""
    if torch.cuda.is_initialized():
        return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    mps = [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else []
    return [torch.get_rng_state(), *mps]


def restore_random_state(state: list[Tensor]) -> None:
    """Take up a `random_state`."""
    torch.set_rng_state(state[0])
    if len(state) > 1 and torch.cuda.is_initialized():
        torch.cuda.set_rng_state_all(state[1:])
    elif len(state) > 1:
        torch.mps.set_rng_state(state[1])


@contextmanager
def random_state_restored() -> Iterator[None]:
    """Give back, at the end of the block, torch's random state as it was at its beginning."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


@contextmanager
def modes_restored(model: nn.Module) -> Iterator[None]:
    """Train and eval modes come back at the end of the block."""
    # Module by module: a part may deliberately be in another mode than the whole.
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
