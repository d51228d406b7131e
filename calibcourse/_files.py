"""Files that survive a kill and a reader that trusts nothing, for every module with state."""

import glob
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

MAX_JSON_BYTES = 64 * 2**20
ABANDONED_SECONDS = 60.0  # without a change: the writer of such a neighbour was killed
MAX_MESSAGE = 500  # characters of an error that quotes a file, which may hold words of 10 MB


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, never a part.

    The bytes go to a hidden neighbour (same file system) that then takes the file's name; a kill in
    between leaves the old file as it was. What a killed writer left there goes with a later write
    of the same file. Missing folders are made; where the path is a link, its target is written.

    Args:
        path: where to write; an existing file is replaced.
        content: the whole new content.

    Raises:
        OSError: a folder, pipe or device has that name, or the folder cannot be made or written,
            or the disk is full; the file is named.
    """
    with staged(path, content) as take_name:
        take_name()


def check_writable(path: str | os.PathLike) -> None:
    """Raise now the OSError that `write_atomically` would raise when the work is done."""
    with staged(path, b""):
        pass


@contextmanager
def staged(path: str | os.PathLike, content: bytes) -> Iterator[Callable[[], None]]:
    """Content that waits beside a file, whole and on the disk, for a call to take the file's name.

    Several files are written all or none where each is staged before the first takes its name.
    What has not been called by the end of the block leaves no trace.

    Args:
        path, content: as in `write_atomically`.

    Raises:
        OSError: as in `write_atomically`; from the call too, should renaming fail.
    """
    target = Path(os.path.realpath(path))
    # A name of its own for each write keeps writers apart: threads, processes, other machines.
    neighbour = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")

    def take_name() -> None:
        with _named(path):
            os.replace(neighbour, target)

    try:
        with _named(path):
            if os.path.lexists(target):
                _require_regular(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            with neighbour.open("xb") as stream:
                _remove_abandoned(target, os.fstat(stream.fileno()).st_mtime)
                stream.write(content)
                # Some disks (network, quota) tell only now that they are full.
                stream.flush()
                os.fsync(stream.fileno())
        yield take_name
    finally:
        with suppress(OSError):
            neighbour.unlink()


@contextmanager
def _named(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def _remove_abandoned(target: Path, now: float) -> None:
    """Remove what killed writers of a file left; `now` by the file system's own clock."""
    for other in target.parent.glob(f".{glob.escape(target.name)}.????????.tmp"):
        with suppress(OSError):  # another writer may be as fast
            if abs(now - other.stat().st_mtime) > ABANDONED_SECONDS:
                other.unlink()


def write_json(path: str | os.PathLike, value: Any, indent: int | None = 1) -> None:
    """Write plain data as JSON, atomically; NaN and infinity are refused, they are not JSON."""
    text = json.dumps(value, indent=indent, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a file for reading; a pipe or a device, which may never end, is refused.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is no regular file, or cannot be opened.
    """
    _require_regular(path)
    return open(path, "rb")


def _require_regular(path: str | os.PathLike) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} must be a regular file")


def read_json(path: str | os.PathLike, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read JSON from a file that somebody else may have written.

    Args:
        path: the file.
        max_bytes: refuse larger files before reading them.

    Returns:
        The parsed value; its structure is the caller's to check.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is no regular file, or cannot be opened.
        ValueError: too large, not UTF-8, not JSON, nested too deeply, or holding NaN, infinity or a
            number that Python would read as infinity, such as 1e999.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            raise ValueError(f"{path} must hold at most {max_bytes} bytes, got {size}")
        content = stream.read(size)  # not to the end, which may move while somebody writes
    try:
        return json.loads(
            content.decode(), parse_constant=_refuse_constant, parse_float=_finite_float
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON file: {shortened(error)}") from error


def shortened(error: object) -> str:
    """The text of an error, cut where it quotes too much of what it met."""
    text = str(error)
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} …"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shortened(text)} is too large a number")
    return value
