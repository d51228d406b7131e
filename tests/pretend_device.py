"""A pretend accelerator for tests: tensors that say they are on `cuda:0` and live in plain memory.

    with pretend_device() as device:
        device.clear()
        model.to("cuda")(inputs.to("cuda"))
        device.waits        # Counter: how often the host waited for the device, by operation

It shows what a second device shows: a result on the wrong device, tensors of two devices mixed
(0-dim tensors of the CPU may mix, as on CUDA), a copy or a wait (`.item()`, `bool()`, `nonzero`,
indexing with a mask) that nobody meant, NumPy asked to read what it cannot, a random state of
another device; and float64 refused, as by Apple's "mps". It does not show speed, a kernel's own
rounding, or non-determinism: the arithmetic is the CPU's, to the last bit.

A `PretendTensor` wraps the tensor that holds its numbers. Torch's C++ takes it for one of the CPU
(a build without CUDA can do nothing else), Python is told otherwise; what C++ itself decides by the
device (`.to`, one_hot) is decided here instead. What C++ makes unasked lies on the CPU, such as the
zeros of a gradient that is missing in some second derivatives (max_pool2d): there it refuses what a
real device takes. Everything ends with the block.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest import mock

import torch
import torch._dynamo  # before the modes are on: its import makes tensors
import torch._subclasses.fake_tensor  # as well
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

aten, functorch = torch.ops.aten, torch._C._functorch
CPU = torch.device("cpu")
# What makes the host wait for the device: the result is a number, or its size depends on numbers.
WAITS = {
    aten._local_scalar_dense, aten.nonzero, aten.equal, aten._unique2, aten.unique_dim,
    aten.unique_consecutive, aten.masked_select, aten.bincount, aten.histc, aten._linalg_eigh,
    aten._linalg_svd, aten.linalg_qr, aten._linalg_check_errors, aten.linalg_eigvals,
}  # fmt: skip
INDEXING = {
    aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index,
}  # fmt: skip
# Kernels outside TensorIterator take no 0-dim tensor of the CPU either.
NO_SCALARS = {
    aten.mm, aten.addmm, aten.bmm, aten.mv, aten.addmv, aten.dot, aten.gather, aten.scatter,
    aten.index_add, aten.index_add_, aten.bucketize, aten.searchsorted, aten.cat, aten.convolution,
}  # fmt: skip
# Of several operations on tensors that C++ makes on "its" device; nobody differentiates them here.
MADE_OF_PARTS = {torch.nn.functional.one_hot, torch.quantile, Tensor.quantile}
MADE_OF_DATA = {torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.asarray}
WIDE = {torch.float64, torch.complex128}
RealGenerator, REAL_DEVICE = torch.Generator, Tensor.device.__get__


@dataclass
class Device:
    """The device that is on, and what it has seen.

    Args:
        type: "cuda" or "mps".
        float64: whether it has double precision.
    """

    type: str = "cuda"
    float64: bool = True
    waits: Counter = field(default_factory=Counter)  # by operation; copies are "to" and "from"
    on_wait: Callable[[str], None] = lambda operation: None  # to find out where one comes from
    generator: RealGenerator = field(default_factory=RealGenerator)  # the default one
    moving: bool = False  # a change of device that Python asked for is under way
    generators: set[int] = field(default_factory=set)  # those of the device, by their address

    def __post_init__(self):
        self.device = torch.device(self.type, 0)
        self.generators.add(self.generator._cdata)

    def clear(self) -> None:
        """Forget the waits so far."""
        self.waits.clear()

    def wait(self, operation: str) -> None:
        self.waits[operation] += 1
        self.on_wait(operation)

    def is_here(self, device: object) -> bool:
        return device is not None and torch.device(device).type == self.type


here: Device | None = None  # the one that is on


class PretendTensor(Tensor):
    """A tensor of the pretend device; `held` is the one that holds its numbers."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendTensor":
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device="cpu",
        )  # fmt: skip
        made.held, made.place = held, here.device
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})

    device = property(lambda self: self.place)
    is_cpu = property(lambda self: False)
    is_cuda = property(lambda self: self.place.type == "cuda")
    is_mps = property(lambda self: self.place.type == "mps")

    @property
    def data(self) -> "PretendTensor":
        return PretendTensor(self.held.data)

    @data.setter
    def data(self, value: "PretendTensor") -> None:
        Tensor.data.__set__(self, value)
        self.held = value.held

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self):
        return self.held.untyped_storage()

    def tolist(self) -> list:
        return self.cpu().tolist()

    def numpy(self, *args: object, **options: object):
        raise TypeError(
            f"can't convert {self.place} device type tensor to numpy. Use Tensor.cpu() to copy the "
            "tensor to host memory first."
        )

    __array__ = numpy

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if self.ndim == 0 else repr(self)

    def __repr__(self) -> str:
        return f"{repr(self.held)[:-1]}, device='{self.place}')"

    def __reduce_ex__(self, protocol: int):
        return PretendTensor, (self.held,)


def run(operation, args: tuple, kwargs: dict):
    """One operation, on the tensors that hold the numbers, or refused as the device would."""
    kind, leaves = operation.overloadpacket, tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = kwargs | {"device": CPU}
    if kind in (aten._to_copy, aten.copy_):
        return _copied(operation, args, kwargs, wanted)
    _check_one_device(operation, tensors)
    on_device = bool(ours) or here.is_here(wanted)
    generator = next((leaf for leaf in leaves if isinstance(leaf, RealGenerator)), None)
    if generator is not None and (generator._cdata in here.generators) != on_device:
        raise RuntimeError(f"Expected a '{here.type if on_device else 'cpu'}' device for generator")
    if ours and (kind in WAITS or _reads_a_mask(kind, args)):
        here.wait(kind.__name__)
    draws = generator is None and torch.Tag.nondeterministic_seeded in operation.tags
    with _own_random_state() if on_device and draws else ExitStack():
        out = operation(*tree_map(_held, args), **tree_map(_held, kwargs))
    if not on_device:
        return out
    out = tree_map(_wrapped, out)
    return return_and_correct_aliasing(operation, args, kwargs, out) if ours else out


def _copied(operation, args: tuple, kwargs: dict, wanted: torch.device | None):
    """A change of device or dtype; between two devices the host waits."""
    in_place = operation.overloadpacket is aten.copy_
    source = args[1] if in_place else args[0]
    follows = isinstance(args[0], PretendTensor)  # without a device to go to, or to copy into
    # C++ itself asks for "the CPU", where it believes that the tensor is: it stays.
    own = in_place or wanted is None or not (here.moving or here.is_here(wanted))
    arrives = follows if own else here.is_here(wanted)
    if arrives != isinstance(source, PretendTensor):
        here.wait("to" if arrives else "from")
    if arrives and not here.float64 and kwargs.get("dtype", source.dtype) in WIDE:
        _refuse_float64()
    out = operation(*tree_map(_held, args), **kwargs)
    if in_place:
        return args[0]
    return _wrapped(out) if arrives else out


def _check_one_device(operation, tensors: list[Tensor]) -> None:
    kind = operation.overloadpacket
    others = [tensor for tensor in tensors if not isinstance(tensor, PretendTensor)]
    if len(others) == len(tensors):
        return
    for other in others:
        if kind in INDEXING and not other.is_floating_point() and other is not tensors[0]:
            here.wait("to")  # an index may lie on the CPU: it is copied
        elif other.ndim or kind in NO_SCALARS:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{here.device} and cpu! (when checking {operation})"
            )


def _reads_a_mask(kind, args: tuple) -> bool:
    if kind not in INDEXING:
        return False
    masks = any(index is not None and index.dtype == torch.bool for index in args[1])
    fills = len(args) > 2 and args[2].numel() == 1  # one number everywhere: no counting needed
    return masks and not fills


def _held(leaf: object) -> object:
    return leaf.held if isinstance(leaf, PretendTensor) else leaf


def _wrapped(leaf: object) -> object:
    if not isinstance(leaf, Tensor) or isinstance(leaf, PretendTensor):
        return leaf
    if not here.float64 and leaf.dtype in WIDE:
        _refuse_float64()
    return PretendTensor(leaf)


def _refuse_float64() -> None:
    raise TypeError(
        "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support "
        "float64. Please use float32 instead."
    )


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Draw from the device's generator and leave the CPU's where it is."""
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(here.generator.get_state())
    try:
        yield
    finally:
        here.generator.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(before)


class Operations(TorchDispatchMode):
    """What makes tensors on the device, from nothing or from those of the CPU."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ours = any(isinstance(leaf, PretendTensor) for leaf in tree_leaves((args, kwargs)))
        if ours or here.is_here(kwargs.get("device")):
            return run(operation, args, kwargs)
        return operation(*args, **kwargs)


class Functions(TorchFunctionMode):
    """What torch decides by the device before any operation runs."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is Tensor.device.__get__:
            return _place(args[0])
        if function in (Tensor.cuda, Tensor.cpu):
            return _moved(args[0], here.device if function is Tensor.cuda else CPU)
        if function is Tensor.to:
            return self._to(*args, **kwargs)
        if function in MADE_OF_PARTS and isinstance(args[0], PretendTensor):
            return tree_map(_wrapped, function(*tree_map(_held, args), **tree_map(_held, kwargs)))
        if function in MADE_OF_DATA and kwargs.get("device") is not None:
            return _moved(
                function(*args, **kwargs | {"device": None}), torch.device(kwargs["device"])
            )
        if here.is_here(kwargs.get("device")):
            kwargs = kwargs | {"device": here.device}
        return function(*args, **kwargs)

    @staticmethod
    def _to(tensor: Tensor, *args: object, **options: object) -> Tensor:
        named = [*args, *options.values()]
        like = next((value for value in named if isinstance(value, Tensor)), tensor)
        place = next((v for v in named if isinstance(v, str | torch.device)), _place(like))
        dtype = next((v for v in named if isinstance(v, torch.dtype)), like.dtype)
        return _moved(tensor, torch.device(place), dtype, copy=bool(options.get("copy")))


def _place(tensor: Tensor) -> torch.device:
    """Where a tensor lies, under whatever torch.func has wrapped around it."""
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor.place if isinstance(tensor, PretendTensor) else REAL_DEVICE(tensor)


def _moved(
    tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None, copy: bool = False
) -> Tensor:
    dtype = dtype or tensor.dtype
    if (_place(tensor).type, tensor.dtype) == (device.type, dtype) and not copy:
        return tensor
    here.moving = True
    try:
        return aten._to_copy(tensor, dtype=dtype, device=device)
    finally:
        here.moving = False


def _apply(module: torch.nn.Module, move: Callable[[Tensor], Tensor], recurse: bool = True):
    """`Module._apply`: the parameters stay the same objects, what is behind them moves."""
    for part in module.modules() if recurse else [module]:
        for parameter in part._parameters.values():
            if parameter is None or (moved := torch.no_grad()(move)(parameter)) is parameter:
                continue
            gradient, parameter.grad = parameter.grad, None
            new = torch.nn.Parameter(moved, parameter.requires_grad)
            # As torch.utils.swap_tensors, which refuses where an old graph holds the parameter.
            torch._C._swap_tensor_impl(parameter, new)
            for attribute in ("__class__", "__dict__"):
                ours, theirs = getattr(parameter, attribute), getattr(new, attribute)
                setattr(parameter, attribute, theirs)
                setattr(new, attribute, ours)
            parameter.grad = None if gradient is None else move(gradient)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else move(buffer)
    return module


class Generator(RealGenerator):
    """A generator of the CPU that is remembered as one of the device."""

    def __new__(cls, device: object = "cpu") -> "Generator":
        made = RealGenerator.__new__(cls)
        if here.is_here(device):
            here.generators.add(made._cdata)
        return made

    def __init__(self, device: object = "cpu"):
        pass


@contextmanager
def pretend_device(kind: str = "cuda", *, float64: bool = True) -> Iterator[Device]:
    """A device of that kind, "cuda" or "mps", for the block."""
    global here
    before, here = here, Device(kind, float64)
    get_state, set_state = here.generator.get_state, here.generator.set_state
    cuda = {
        "_initialized": kind == "cuda", "_lazy_init": lambda: None, "device_count": lambda: 1,
        "is_available": lambda: kind == "cuda", "is_initialized": lambda: kind == "cuda",
        "current_device": lambda: 0, "synchronize": lambda device=None: None,
        "get_device_name": lambda device=None: "Pretend GPU",
        "get_rng_state": lambda device=None: get_state(),
        "set_rng_state": lambda new, device=None: set_state(new),
        "get_rng_state_all": lambda: [get_state()],
        "set_rng_state_all": lambda states: set_state(states[0]),
        "manual_seed_all": here.generator.manual_seed,
    }  # fmt: skip
    mps = {
        "manual_seed": here.generator.manual_seed, "get_rng_state": get_state,
        "set_rng_state": set_state,
    }  # fmt: skip
    try:
        with (
            mock.patch.multiple(torch.cuda, **cuda),
            mock.patch.multiple(torch.mps, **mps) if kind == "mps" else ExitStack(),
            mock.patch.object(torch.backends.mps, "is_available", lambda: kind == "mps"),
            mock.patch.object(torch, "Generator", Generator),
            mock.patch.object(torch.nn.Module, "_apply", _apply),
            torch.serialization.safe_globals([PretendTensor]),
            Functions(),
            Operations(),
        ):
            yield here
    finally:
        here = before
