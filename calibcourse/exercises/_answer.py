"""A learner's function, called so that nothing it does can disturb the notebook or the check."""

import contextlib
import inspect
import io
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ._deadline import TooLong, deadline
from ._effects import copied, effect, global_state, undone

CALL_SECONDS, CHECK_SECONDS = 10.0, 30.0  # soft limits of one call, and of all calls of a check
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
class Slow(Signal):
    """The function had not returned when its time was over; and where it was then."""

    seconds: float
    where: str = ""


@dataclass
class Mutated(Signal):
    """The function changed an argument, or a setting; `effect` is a key of `EFFECTS`."""

    argument: str
    effect: str = "values"


class Answer:
    """A function under examination: call it like the function itself.

    Each call works on fresh copies of its arguments (a model with its gradients too), within a time
    limit, with the global random generators seeded and afterwards restored, output captured and
    warnings silenced. What the call leaves behind is compared with what was there before.

    Args:
        function: the learner's function.
        names: of its arguments, for messages.
        seed: of the global random generators during each call.

    Attributes:
        given: the copies that the last call worked on; a gradient of what it returned is one in
            their parameters.
        returned: by the last call.
        printed: by the last call.
        calls: how many there were.

    Raises:
        Blank, Raised, Slow, Mutated: on a call; never another exception, save KeyboardInterrupt.

    Example:
        >>> import torch
        >>> Answer(lambda x: x.exp(), ("x",))(torch.zeros(2))
        tensor([1., 1.])
    """

    def __init__(self, function: Callable, names: tuple[str, ...] = (), seed: int = 0):
        self.function = function
        self.names = names
        self.seed = seed
        self.calls = 0
        self.printed = ""
        self.given: tuple = ()
        self.returned: Any = None
        self._seconds_left = CHECK_SECONDS

    def __call__(self, *arguments: Any) -> Any:
        self._check_arity(arguments)
        self.calls += 1
        self.given = tuple(copied(argument) for argument in arguments)
        with undone(self.seed):
            settings = global_state()
            value = self._value()
            changed = settings != global_state()
        if _is_blank(value):
            raise Blank
        for position, (before, after) in enumerate(zip(arguments, self.given, strict=True)):
            if found := effect(before, after):
                named = position < len(self.names)
                argument = self.names[position] if named else f"argument {position + 1}"
                raise Mutated(argument, found)
        if changed:
            raise Mutated("torch", "settings")
        self.returned = value
        return value

    def _value(self) -> Any:
        limit = min(CALL_SECONDS, max(self._seconds_left, 0.01))
        output, begun = io.StringIO(), time.monotonic()
        try:
            with _silenced(output), deadline(limit):
                return self.function(*self.given)
        except TooLong as stop:
            raise Slow(limit, _where(stop, self.function)) from None
        except (Exception, SystemExit) as error:
            if isinstance(error, TypeError | AttributeError) and "ellipsis" in _message(error):
                raise Blank from None
            raise Raised(_one_line(error), _where(error, self.function)) from None
        finally:
            self._seconds_left -= time.monotonic() - begun
            self.printed = tidy(output.getvalue())

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
def _silenced(output: io.StringIO) -> Iterator[None]:
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


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
