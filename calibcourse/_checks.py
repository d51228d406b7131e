"""Input validation shared by every module: errors name the argument, the fault and the remedy."""

import math
from collections.abc import Collection, Sequence
from contextvars import ContextVar
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn


def check_logits(logits: Tensor, name: str = "logits") -> None:
    """Require finite floating logits of shape (N, K) with N >= 1 and K >= 2."""
    _check_shape_of_logits(logits, name)
    check_finite(logits, name)


def check_masked_logits(logits: Tensor, name: str = "logits") -> None:
    """Require logits as `check_logits` does, but take -inf for a masked class."""
    _check_shape_of_logits(logits, name)
    # The largest of each sample is finite exactly where no logit is NaN or +inf, and not all -inf.
    largest = logits.detach().amax(1)
    if not torch.isfinite(largest).all():
        row = int((~torch.isfinite(largest)).nonzero()[0])
        raise ValueError(
            f"{name} must be finite, or -inf where a class is masked, with one finite logit per "
            f"sample at least; got NaN, +inf or nothing else in sample {row}"
        )


def check_masked_logits_and_target(logits: Tensor, target: Tensor, name: str = "logits") -> None:
    """Require `check_masked_logits` and matching labels, none of them masked."""
    check_masked_logits(logits, name)
    _check_target_of(logits, target, name)
    masked = logits.detach().gather(1, target[:, None])[:, 0] == -math.inf
    if masked.any():
        raise ValueError(
            f"target must be no masked class, got the label {int(target[masked][0])} of sample "
            f"{int(masked.nonzero()[0])}, whose logit is -inf"
        )


def _check_shape_of_logits(logits: Tensor, name: str) -> None:
    check_floating(logits, name)
    if logits.ndim != 2:
        ones = logits.ndim > 2 and logits.shape[2:].numel() == 1
        raise ValueError(
            f"{name} must have shape (N, K), got {tuple(logits.shape)}"
            + (": flatten(1) drops axes of length 1" if ones else "")
        )
    n_samples, n_classes = logits.shape
    if n_samples == 0:
        raise ValueError(f"{name} must hold at least one sample, got shape {tuple(logits.shape)}")
    if n_classes < 2:
        raise ValueError(
            f"{name} must have K >= 2 classes, got shape {tuple(logits.shape)}; one logit z of a "
            "yes-or-no model says the same as the two logits torch.cat([torch.zeros_like(z), z], 1)"
        )


def check_floating(values: Tensor, name: str) -> None:
    """Require a dense tensor of float16, bfloat16, float32 or float64 that holds numbers."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(values).__name__}")
    if not values.is_floating_point():
        raise TypeError(f"{name} must have a floating dtype, got {values.dtype}")
    if values.itemsize == 1:
        raise TypeError(f"{name} must have a dtype of 16 bits or more, got {values.dtype}")
    _check_dense(values, name)


def _check_dense(values: Tensor, name: str) -> None:
    if values.layout != torch.strided or values.is_meta:
        what = "one without numbers, on 'meta'" if values.is_meta else values.layout
        raise TypeError(f"{name} must be a dense tensor that holds numbers, got {what}")


class Once:
    """Data whose range is read once however often it is checked: to read is to wait for a device.

    Args:
        whole: tensors; in training the inputs and the target of all samples. Nothing where they are
            never all in memory: then every block's parts are read.
    """

    def __init__(self, *whole: Tensor):
        self._whole: tuple[Tensor, ...] = whole
        self._parts: tuple[tuple[Tensor, int], ...] = ()
        self._ranges: dict[int, tuple[float, float]] = {}
        self.later = False
        self.noted: list[Tensor] = []  # extremes to be finite, 0-dim

    def on(self, *parts: Tensor, later: bool = False) -> Self:
        """For a `with` block: the parts are known to be samples of the whole, in the same order.

        Args:
            parts: the samples at hand.
            later: whether `check_finite` of anything else notes what is left for `all_finite`.
        """
        self._parts, self.later = tuple((part, _version(part)) for part in parts), later
        if not self._whole:
            self._ranges = {}
        return self

    def __enter__(self) -> None:
        self._token = _once.set(self)

    def __exit__(self, *error: object) -> None:
        _once.reset(self._token)

    def all_finite(self, *values: Tensor) -> bool:
        """Whether the values, and everything noted since the last time, are finite: one wait."""
        noted, self.noted = [*values, *self.noted], []
        return all(map(math.isfinite, numbers(noted)))

    def range_of(self, values: Tensor) -> tuple[float, float] | None:
        """The range of all samples, where these are known to be some of them; else None."""
        for place, (part, version) in enumerate(self._parts):
            if _same_memory(values, part) and version == _version(values):
                if place not in self._ranges:
                    self._ranges[place] = _range(self._whole[place] if self._whole else part)
                return self._ranges[place]
        return None


_once: ContextVar[Once | None] = ContextVar("once", default=None)


def _version(values: Tensor) -> int:
    return 0 if values.is_inference() else values._version


def _same_memory(left: Tensor, right: Tensor) -> bool:
    return left is right or (
        (left.shape, left.dtype, left.device) == (right.shape, right.dtype, right.device)
        and left.data_ptr() == right.data_ptr()
        and left.stride() == right.stride()
    )


def value_range(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest element, NaN where one is; of the whole, where `Once` knows."""
    once = _once.get()
    known = once.range_of(values) if once else None
    return _range(values) if known is None else known


def _range(values: Tensor) -> tuple[float, float]:
    low, high = numbers(torch.aminmax(values.detach()))
    return low, high


def numbers(values: Sequence[Tensor]) -> list[float]:
    """Tensors of one element as numbers, in one wait for a device; for a CPU there is no wait."""
    try:
        if all(value.is_cpu for value in values):
            return [value.item() for value in values]
        return torch.stack([value.detach().reshape(()) for value in values]).tolist()
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        raise ValueError(
            "values must be known when they are checked, and inside torch.func.vmap they are not: "
            "call this outside, on all samples at once"
        ) from error


def check_finite(values: Tensor, name: str) -> None:
    """Require that no element is NaN or infinite; or note it for later."""
    once = _once.get()
    known = once.range_of(values) if once else None
    if known is None and once and once.later and values.numel():
        once.noted += torch.aminmax(values.detach())
    elif not (all(map(math.isfinite, known)) if known else is_finite(values)):
        bad = int((~torch.isfinite(values)).sum())
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite values")


def is_finite(values: Tensor) -> bool:
    """Whether no element is NaN or infinite; True where there is none."""
    if not values.numel():
        return True
    values = torch.view_as_real(values) if values.is_complex() else values
    # One reduction, without a mask of the tensor's size: any NaN or inf makes min or max one.
    return all(map(math.isfinite, value_range(values)))


def are_finite(tensors: Sequence[Tensor]) -> bool:
    """`is_finite` of many tensors, in one wait per dtype and device."""
    real = (torch.view_as_real(v) if v.is_complex() else v for v in tensors if v.numel())
    extremes = by_kind([end for values in real for end in torch.aminmax(values.detach())])
    return all(all(map(math.isfinite, numbers(ends))) for ends in extremes)


def by_kind(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors by dtype and device: those that can be made one, and read in one wait."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(kinds.values())


def check_target(
    target: Tensor,
    n_samples: int,
    n_classes: int,
    name: str = "target",
    device: torch.device | None = None,
    of: str = "inputs",
) -> None:
    """Require int64 labels of shape (N,) in 0..K-1, on the device, where given, of something."""
    if not isinstance(target, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(target).__name__}")
    one_hot = ": argmax(1) of one-hot rows" if target.ndim == 2 else ""
    if target.dtype != torch.int64:
        how = one_hot or ("" if target.is_floating_point() else ": long() makes it so")
        raise TypeError(f"{name} must have dtype torch.int64, got {target.dtype}{how}")
    if device is not None and target.device != device:
        raise ValueError(f"{name} must be on the device of {of} ({device}), got {target.device}")
    if target.shape != (n_samples,):
        shape = tuple(target.shape)
        raise ValueError(f"{name} must have shape ({n_samples},), got {shape}{one_hot}")
    low, high = value_range(target)
    if low < 0 or high >= n_classes:
        raise ValueError(f"{name} must lie in 0..{n_classes - 1}, got values from {low} to {high}")


def check_logits_and_target(logits: Tensor, target: Tensor, name: str = "logits") -> None:
    """Require valid logits (N, K) and matching labels (N,) on the same device."""
    check_logits(logits, name)
    _check_target_of(logits, target, name)


def _check_target_of(logits: Tensor, target: Tensor, name: str) -> None:
    check_target(target, *logits.shape, device=logits.device, of=name)


def check_inputs(inputs: Tensor, name: str = "inputs", *, integers: bool = False) -> None:
    """Require a finite floating batch of at least one sample, shape (N, ...).

    `integers=True` lets numbers of tokens or categories pass, of shape (N,) too: what no derivative
    in the inputs is taken of.
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(inputs).__name__}")
    if integers and not inputs.is_floating_point() and not inputs.is_complex():
        _check_dense(inputs, name)
        if inputs.ndim < 1 or len(inputs) == 0:
            raise ValueError(
                f"{name} must have shape (N, ...) with N >= 1, got {tuple(inputs.shape)}"
            )
        return
    check_floating(inputs, name)
    if inputs.ndim < 2 or inputs.shape[0] == 0:
        raise ValueError(f"{name} must have shape (N, ...) with N >= 1, got {tuple(inputs.shape)}")
    check_finite(inputs, name)


def check_integer(value: int, name: str, minimum: int) -> int:
    """Require an integer (not a bool) of at least `minimum`; NumPy's come back as Python's own."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def check_operator(operator: object) -> None:
    """Require what has products with vectors."""
    if not all(hasattr(operator, name) for name in ("matvec", "shape", "dtype", "device")):
        raise TypeError(
            "operator must have matvec, shape, dtype and device, got "
            f"{type(operator).__name__}; MatrixOperator makes one of a matrix, GaussNewton and "
            "Hessian of a model"
        )


def check_seed(seed: int, below: int = 2**63) -> int:
    """Require an integer that torch takes as a seed, also with the number of an epoch added."""
    seed = check_integer(seed, "seed", 0)
    if seed >= below:
        raise ValueError(f"seed must be below 2**{below.bit_length() - 1}, got {seed}")
    return seed


def check_real(
    value: float,
    name: str,
    minimum: float = -float("inf"),
    maximum: float = float("inf"),
    *,
    strict: bool = False,
) -> float:
    """Require a finite real number in [minimum, maximum], or in the open interval if `strict`.

    NumPy's numbers come back as Python's own.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}")
    inside = minimum < value < maximum if strict else minimum <= value <= maximum
    if not inside or value in (float("inf"), -float("inf")):
        left = "(" if strict or math.isinf(minimum) else "["
        right = ")" if strict or math.isinf(maximum) else "]"
        raise ValueError(f"{name} must lie in {left}{minimum}, {maximum}{right}, got {value}")
    return value.item() if isinstance(value, np.generic) else value


def check_choice(value: str, name: str, choices: Collection[str]) -> None:
    """Require one of the listed words; the error lists them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(sorted(choices))}; got {value!r}")


def check_deterministic_model(model: nn.Module) -> None:
    """Require that no layer is in a mode where its output depends on chance or on the batch.

    BatchNorm in train mode couples the samples of a batch, dropout makes the output random: in
    both cases "the Jacobian of a sample" is undefined. These layers are named here; what the list
    does not know, `_conduct.well_behaved` finds by trial.
    """
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if not module.training:
            continue
        chance = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if chance or batch:
            raise ValueError(
                f"model must not have {type(module).__name__} in train mode (layer {name!r}): "
                "its output depends on the rest of the batch or on chance; call model.eval() first"
            )


def check_trainable(model: nn.Module) -> None:
    """Require a module with something to train."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("model must have a trainable parameter, got none")


def check_numbers(model: nn.Module) -> None:
    """Require that no parameter is on the device `meta`."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(
                f"model must hold numbers, but {name!r} is on the device 'meta': build it on a "
                "real one, or model.to_empty(device=...) and load_state_dict"
            )


def check_finite_parameters(model: nn.Module) -> None:
    """Require that every parameter is finite, and holds numbers at all."""
    check_numbers(model)
    if are_finite(list(model.parameters())):
        return
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            raise ValueError(f"model must have finite parameters, got NaN or inf in {name!r}")


def not_twice(error: object) -> ValueError:
    """What to say where torch has no second derivative."""
    return ValueError(
        "model must consist of operations that torch can differentiate twice, got one that it "
        f"cannot ({error}); replace it by a differentiable one"
    )
