"""A time limit on a call: an endless loop ends in a message, not in a kernel that hangs."""

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

_AGAIN = 1.0  # seconds: an exception raised within a destructor is lost, so one more follows


class TooLong(BaseException):
    """Raised inside a call whose time is over; a loop's `except Exception` lets it pass."""


def deadline(seconds: float) -> AbstractContextManager[None]:
    """A block that is left with `TooLong` after so many seconds.

    A call into C (one long matrix product) is left when it ends. In the main thread of Linux and
    macOS, a sleep is cut short too.

    Args:
        seconds: above 0, by the wall clock.

    Example:
        >>> with deadline(60):
        ...     print("in time")
        in time
    """
    in_main = threading.current_thread() is threading.main_thread()
    return (_by_signal if in_main and hasattr(signal, "setitimer") else _by_thread)(seconds)


@contextlib.contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    running, begun = True, time.monotonic()

    def stop(*_: object) -> None:
        if running:
            raise TooLong

    handler = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
        if left:  # somebody else's timer goes on
            left = max(left - (time.monotonic() - begun), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextlib.contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    """For other threads, and for Windows: the interpreter is asked to raise in this thread."""
    running, over = True, threading.Event()
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    thread = ctypes.c_ulong(threading.get_ident())

    def watch() -> None:
        wait = seconds
        while not over.wait(wait) and running:
            raise_in(thread, ctypes.py_object(TooLong))
            wait = _AGAIN

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        running = False
        over.set()
        watcher.join()
        raise_in(thread, None)  # one that was sent and has not arrived
