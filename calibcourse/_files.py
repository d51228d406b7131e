"""Files that survive a kill and a reader that trusts nothing, for every module with state."""

import json
import os
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 64 * 2**20


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, never a part.

    The bytes go to a hidden neighbour (same file system) that then takes the file's name; a kill in
    between leaves the old file as it was. Missing folders are made.

    Args:
        path: where to write; an existing file is replaced.
        content: the whole new content.

    Raises:
        OSError: the folder cannot be made or written, naming it.
    """
    path = Path(path)
    # The process number keeps two writers of one file apart.
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        neighbour.write_bytes(content)
        os.replace(neighbour, path)
    except OSError as error:
        if neighbour.is_file():
            neighbour.unlink()
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def write_json(path: str | os.PathLike, value: Any, indent: int | None = 1) -> None:
    """Write plain data as JSON, atomically; NaN and infinity are refused, they are not JSON."""
    text = json.dumps(value, indent=indent, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: str | os.PathLike, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read JSON from a file that somebody else may have written.

    Args:
        path: the file.
        max_bytes: refuse larger files before reading them.

    Returns:
        The parsed value; its structure is the caller's to check.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: too large, not UTF-8, not JSON, nested too deeply, or holding NaN or infinity.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} must hold at most {max_bytes} bytes, got {size}")
    try:
        return json.loads(path.read_bytes().decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON file: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
