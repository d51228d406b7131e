"""A learner's function, called so that nothing it does can disturb the notebook or the check."""

import contextlib
import copy
import inspect
import io
import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_LINES, _COLUMNS = 8, 200  # of printed text and of exception messages that a check shows


class Signal(Exception):
    """A call that gave no value to judge; the subclasses say why."""


class Blank(Signal):
    """The function returned nothing, or still holds the stub's dots."""


@dataclass
class Raised(Signal):
    """The function raised: the exception in one line, and where, without paths of the machine."""

    error: str
    where: str = ""


@dataclass
class Mutated(Signal):
    """The function changed an argument in place."""

    argument: str


class Answer:
    """A function under examination: call it like the function itself.

    Each call works on fresh copies of its arguments, with the global random generators seeded and
    afterwards restored, output captured and warnings silenced.

    Args:
        function: the learner's function.
        names: of its arguments, for messages.
        seed: of the global random generators during each call.

    Raises:
        Blank, Raised, Mutated: on a call; never another exception, save KeyboardInterrupt.

    Example:
        >>> Answer(lambda x: x.exp(), ("x",))(torch.zeros(2))
        tensor([1., 1.])
    """

    def __init__(self, function: Callable, names: tuple[str, ...] = (), seed: int = 0):
        self.function = function
        self.names = names
        self.seed = seed
        self.calls = 0
        self.printed = ""
        self.returned: Any = None

    def __call__(self, *arguments: Any) -> Any:
        self._check_arity(arguments)
        self.calls += 1
        copies = tuple(_copy(argument) for argument in arguments)
        output = io.StringIO()
        try:
            with _sealed(self.seed, output):
                value = self.function(*copies)
        except (Exception, SystemExit) as error:
            if isinstance(error, TypeError | AttributeError) and "ellipsis" in _message(error):
                raise Blank from None
            raise Raised(_one_line(error), _where(error, self.function)) from None
        finally:
            self.printed = tidy(output.getvalue())
        if _is_blank(value):
            raise Blank
        for position, (before, after) in enumerate(zip(arguments, copies, strict=True)):
            if not _unchanged(before, after):
                named = position < len(self.names)
                raise Mutated(self.names[position] if named else f"argument {position + 1}")
        self.returned = value
        return value

    def _check_arity(self, arguments: tuple) -> None:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # builtins without a signature: the call itself will tell
            return
        try:
            signature.bind(*arguments)
        except TypeError:
            expected = ", ".join(self.names[: len(arguments)])
            taken = ", ".join(signature.parameters)
            raise Raised(
                f"TypeError: the check calls your function with ({expected}), it takes ({taken})"
            ) from None


def tidy(text: str) -> str:
    """Shorten text and take out what differs between machines and runs: paths and addresses.

    Example:
        >>> tidy("no file /home/ada/course/data.npz in <Model at 0x7f3a>")
        'no file data.npz in <Model at 0x…>'
    """
    text = re.sub(r"0x[0-9a-fA-F]+", "0x…", text)
    text = re.sub(r"(?<![\w.])(?:[A-Za-z]:)?(?:[/\\][\w.+~-]+)+[/\\](?=[\w.+~-])", "", text)
    text = re.sub(r"ipykernel_\d+", "the notebook", text)
    lines = [line[:_COLUMNS] + ("…" if len(line) > _COLUMNS else "") for line in text.splitlines()]
    return "\n".join(lines[:_LINES] + (["…"] if len(lines) > _LINES else [])).rstrip()


@contextlib.contextmanager
def _sealed(seed: int, output: io.StringIO) -> Iterator[None]:
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with (
        torch.random.fork_rng(devices=[]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would reach CUDA too
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):  # deepcopy refuses tensors that are not leaves
        return value.detach().clone().requires_grad_(value.requires_grad)
    if type(value) in (list, tuple):
        return type(value)(_copy(item) for item in value)
    return copy.deepcopy(value) if isinstance(value, nn.Module | dict | np.ndarray) else value


def _unchanged(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return before.shape == after.shape and torch.equal(*_comparable(before, after))
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after, equal_nan=before.dtype.kind in "fc")
    if isinstance(before, nn.Module):
        return _state(before).keys() == _state(after).keys() and all(
            map(_unchanged, _state(before).values(), _state(after).values())
        )
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(
            _unchanged(before[k], after[k]) for k in before
        )
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    return True


def _comparable(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors with NaN replaced, which would differ from itself, where it was before too."""
    both = before.isnan() & after.isnan()
    return before.masked_fill(both, 0), after.masked_fill(both, 0)


def _is_blank(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return len(value) > 0 and any(item is None or item is ... for item in value)
    return value is None or value is ...


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception of the learner's own whose __str__ fails
        return ""


def _one_line(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "RecursionError: the function calls itself without end"
    return f"{type(error).__name__}: {tidy(_message(error))}".removesuffix(": ")


def _where(error: BaseException, function: Callable) -> str:
    # The learner's last line: their own file, or any notebook cell (helpers defined earlier).
    code = getattr(inspect.unwrap(function), "__code__", None)
    own = code.co_filename if code else None
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == own or re.search(r"ipykernel_\d+|<ipython-input", frame.filename)
    ]
    if not frames:
        return ""
    last = frames[-1]
    return f"line {last.lineno} of {last.name}: {(last.line or '').strip()}".removesuffix(": ")


def _state(model: nn.Module) -> dict[str, Any]:
    modes = {f"mode of {name}": module.training for name, module in model.named_modules()}
    return {**model.state_dict(), **{key: torch.tensor(mode) for key, mode in modes.items()}}
