"""What learners return, read as numbers: tensors, arrays, floats, lists and tuples of them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_SHOWN = 8  # entries of a vector that a message prints


class Unreadable(Exception):
    """What came back is not made of numbers; the message says what it is."""


def parts(value: Any, count: int | None = None) -> tuple[Tensor, ...]:
    """Read a returned value as a tuple of float64 tensors on the CPU.

    A tensor, an array or a number is one part; so is a flat list of numbers. A tuple or list of
    vectors has one part each.

    Args:
        value: whatever a function returned.
        count: how many parts are expected: a single tensor with that many rows is then split.

    Raises:
        Unreadable: the value holds something that is not a real number.

    Example:
        >>> parts([0.5, torch.tensor(1)])
        (tensor([0.5000, 1.0000], dtype=torch.float64),)
        >>> len(parts((np.zeros(3), [1, 2, 3])))
        2
    """
    if isinstance(value, tuple | list):
        read = tuple(_tensor(item) for item in value)
        if read and all(part.ndim == 0 for part in read):
            read = (torch.stack(read),)
    else:
        read = (_tensor(value),)
    if count and count > 1 and len(read) == 1 and read[0].ndim and len(read[0]) == count:
        read = read[0].unbind()
    return read


def array(value: Any) -> Tensor:
    """Read a returned value as one float64 tensor; a list or tuple stacks its items.

    Raises:
        Unreadable: it holds something that is not a real number, or items of different shapes; or
            it is a tuple that holds one value, as a comma behind a `return` makes it.

    Example:
        >>> array([[0.1, 0.2]]).shape, array([torch.zeros(3), torch.ones(3)]).shape
        (torch.Size([1, 2]), torch.Size([2, 3]))
    """
    if not isinstance(value, tuple | list):
        return _tensor(value)
    _refuse_tuple_of_one(value)
    items = [array(item) for item in value]
    if len({item.shape for item in items}) > 1:
        raise Unreadable(f"{_plural(len(items), 'value')} of different shapes")
    return torch.stack(items) if items else torch.zeros(0, dtype=torch.float64)


def number(value: Any) -> float:
    """Read a returned value as one real number.

    Raises:
        Unreadable: it is not a number, or there is more than one, or a tuple holds it.

    Example:
        >>> number(torch.tensor([0.25]))
        0.25
    """
    _refuse_tuple_of_one(value)
    read = parts(value)
    if len(read) != 1 or read[0].numel() != 1:
        raise Unreadable(f"{shape(value)} where a single number was expected")
    return read[0].item()


def agree(left: Any, right: Any, tolerance: float) -> bool:
    """Whether two returned values are the same numbers, up to rtol = atol = tolerance.

    NaN agrees with NaN, so that two answers with the same flaw are recognised as alike.

    Example:
        >>> agree(0.30001, np.float32(0.3), 1e-4), agree([1.0, 2.0], 1.0, 1e-4)
        (True, False)
    """
    expected = parts(right)
    return same_parts(_beside(left, right, len(expected)), expected, tolerance)


def same_parts(left: tuple[Tensor, ...], right: tuple[Tensor, ...], tolerance: float) -> bool:
    """Whether two values, read as tuples of tensors, are the same numbers."""
    return len(left) == len(right) and all(
        _close(a, b, tolerance) for a, b in zip(left, right, strict=True)
    )


def several(value: Any) -> bool:
    """Whether a value is a tuple or list of tensors or arrays: several values, or a list of one.

    Example:
        >>> several((torch.zeros(2), 1.0)), several([torch.zeros(2)]), several([0.1, 0.2])
        (True, True, False)
    """
    if not isinstance(value, tuple | list):
        return False
    return isinstance(value, tuple) or any(not isinstance(v, bool | int | float) for v in value)


def difference(
    returned: Any, expected: Any, tolerance: float, names: tuple[str, ...] = ()
) -> str | None:
    """Say in a sentence how a returned value differs from the expected one, or None.

    The expected numbers are never named: the message points, the learner computes.

    Args:
        returned: the learner's value.
        expected: the right one; a tuple, or a list of tensors, means several values.
        tolerance: absolute and relative.
        names: of the parts, for functions that return several values.

    Raises:
        Unreadable: the returned value is not made of real numbers.

    Example:
        >>> difference(([1, 2], [0.5, 0.1]), ([1, 2], [0.5, 0.2]), 1e-4, ("count", "mean"))
        'First difference: mean[1] (compared to within 0.0001).'
        >>> difference([0.5, 0.1], 0.5, 1e-4)
        'A single number is expected, not a tensor of shape (2,).'
    """
    right = parts(expected)
    found = _beside(returned, expected, len(right))
    if len(found) != len(right):
        verb = "value is" if len(right) == 1 else "values are"
        return f"{len(right)} {verb} expected, not {len(found)}."
    names = names or tuple(f"value {i}" for i in range(len(right)))
    for name, a, b in zip(names, found, right, strict=True):
        name = name if len(right) > 1 else ""
        if a.shape != b.shape and not a.numel() == b.numel() == 1:
            wanted = _shape(b) if name else _shape(b).capitalize()
            return f"{name}: {wanted} is expected, not {_shape(a)}.".removeprefix(": ")
        if not _close(a, b, tolerance):
            return _first_difference(a.reshape(b.shape), b, tolerance, name)
    return None


def show(value: Any, names: tuple[str, ...] = ()) -> str:
    """Write a returned value short and rounded to 4 digits, the same on every machine.

    Example:
        >>> show(torch.tensor([1 / 3, 2])), show((1, [0.5]), ("count", "mean"))
        ('[0.3333, 2]', 'count = 1, mean = [0.5]')
        >>> show(())
        'nothing: an empty tuple'
    """
    try:
        read = parts(value, len(names))
    except Unreadable as problem:
        return str(problem)
    if not read:
        return f"nothing: an empty {type(value).__name__}"
    if len(read) == 1:
        return _show(read[0])
    names = names if len(names) == len(read) else tuple(f"value {i}" for i in range(len(read)))
    return ", ".join(f"{name} = {_show(part)}" for name, part in zip(names, read, strict=True))


def shape(value: Any) -> str:
    """Describe the shape of a returned value in words.

    Example:
        >>> shape(torch.zeros(2, 3)), shape(0.5)
        ('a tensor of shape (2, 3)', 'a single number')
    """
    read = parts(value)
    return _shape(read[0]) if len(read) == 1 else _plural(len(read), "value")


def kind(value: Any) -> str:
    """Name the type of a value with its article.

    Example:
        >>> kind({}), kind(0)
        ('a dict', 'an int')
    """
    noun = type(value).__name__
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def dtype_remark(value: Any) -> str:
    """A remark on a dtype that cannot hold the answer (integers, 16-bit floats), or ""."""
    dtypes = {
        item.dtype
        for item in (value if isinstance(value, tuple | list) else (value,))
        if isinstance(item, Tensor)
    }
    if dtypes & {torch.float16, torch.bfloat16}:
        return "16-bit floats keep only two or three digits: compute in float32."
    if dtypes and not any(dtype.is_floating_point for dtype in dtypes):
        return f"The result has dtype {min(map(str, dtypes))}: fractions are cut off."
    return ""


def _beside(returned: Any, expected: Any, count: int) -> tuple[Tensor, ...]:
    """The returned value in as many parts as the expected one; rows in a list are one matrix."""
    if several(expected):
        return parts(returned, count)
    values = parts(returned)
    same_shape = len({part.shape for part in values}) == 1
    return (array(returned),) if same_shape else values


def _refuse_tuple_of_one(value: Any) -> None:
    if isinstance(value, tuple) and len(value) == 1:
        raise Unreadable(
            "a tuple with one value in it (from a comma behind the `return`, or from a function "
            "that returns a tuple: its entry [0] is the value)"
        )


def _tensor(item: Any) -> Tensor:
    if isinstance(item, bool | int | float):
        item = float(item)  # an int of any size: torch stops at 64 bits
    elif not isinstance(item, Tensor | np.ndarray | np.generic | list | tuple):
        raise Unreadable(kind(item))
    try:
        tensor = item.detach() if isinstance(item, Tensor) else torch.as_tensor(np.asarray(item))
        if tensor.is_complex():
            raise Unreadable("complex numbers")
        return tensor.cpu().to_dense().double() if tensor.is_sparse else tensor.cpu().double()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Unreadable(f"{kind(item)} that is not all numbers") from None


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.numel() == b.numel() == 1:
        a = a.reshape(b.shape)  # a number is a number, also as a tensor of shape (1,)
    return a.shape == b.shape and torch.allclose(
        a, b, rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _first_difference(a: Tensor, b: Tensor, tolerance: float, name: str) -> str:
    wrong = ~torch.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
    place = tuple(torch.nonzero(wrong)[0].tolist())
    index = f"[{', '.join(map(str, place))}]" if place else ""
    where = f"First difference: {name or 'entry '}{index} " if name or index else ""
    if not torch.isfinite(a[place]):
        return f"{where}(a finite number is expected)." if where else "It is a finite number."
    compared = f"compared to within {tolerance:g}"
    return f"{where}({compared})." if where else f"{compared.capitalize()}."


def _show(tensor: Tensor) -> str:
    if tensor.ndim == 0:
        return _digits(tensor.item())
    if tensor.ndim > 1:
        first = tensor.reshape(-1, tensor.shape[-1])[:1].flatten() if tensor.numel() else tensor
        row = f", first row {_show(first)}" if tensor.numel() else ""
        return f"{_shape(tensor)}{row}"
    entries = [_digits(entry) for entry in tensor[:_SHOWN].tolist()]
    if len(tensor) <= _SHOWN:
        return f"[{', '.join(entries)}]"
    return f"[{', '.join(entries)}, …] ({len(tensor)} entries)"


def _digits(value: float) -> str:
    return f"{value + 0.0:.4g}"  # + 0.0 turns -0 into 0


def _shape(tensor: Tensor) -> str:
    return "a single number" if tensor.ndim == 0 else f"a tensor of shape {tuple(tensor.shape)}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
