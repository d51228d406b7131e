"""The file from which an interrupted run goes on.

It is read as if a stranger had made it: nothing in it is executed, and it is used only where every
checksum is right and it belongs to the very run that asks for it.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ._files import open_regular, write_atomically

VERSION = 1


def write_checkpoint(
    path: str | os.PathLike[str], configuration: Mapping[str, Any], state: Mapping[str, Any]
) -> None:
    """Save the state of a run, atomically.

    Args:
        path: the file; an older checkpoint is replaced.
        configuration: what decides the run, as plain data.
        state: tensors and plain data, such as state dictionaries.

    Raises:
        OSError: the file cannot be written, or its disk is full; an older one is left as it was.
    """
    buffer = io.BytesIO()
    torch.save({"version": VERSION, "configuration": dict(configuration), **state}, buffer)
    write_atomically(path, buffer.getvalue())


def read_checkpoint(
    path: str | os.PathLike[str], configuration: Mapping[str, Any]
) -> dict[str, Any]:
    """A checkpoint's content, after making sure that it is one and belongs to this run.

    Args:
        path: the file.
        configuration: as for `write_checkpoint`.

    Returns:
        The state; whether its values fit is the caller's to find out.

    Raises:
        FileNotFoundError, OSError: there is no such file, or it is no regular one.
        ValueError: it is damaged, no checkpoint, or that of another configuration.
    """
    with open_regular(path) as stream:
        try:
            _check_archive(stream)
            state: dict[str, Any] = torch.load(stream, weights_only=True)
            version = int(state["version"])
            saved = {name: json.dumps(value) for name, value in state["configuration"].items()}
        except Exception as error:  # a damaged archive raises errors of many types
            raise ValueError(f"checkpoint {path} is damaged or no checkpoint of a run") from error
    if version != VERSION:
        raise ValueError(f"checkpoint {path} must be of version {VERSION}")
    # As text: what stands in the file may be of any type, and compare in its own way.
    wanted = {name: json.dumps(value) for name, value in configuration.items()}
    if saved != wanted:
        names = [*wanted, *(name for name in saved if name not in wanted)]
        differing = [str(name) for name in names if saved.get(name) != wanted.get(name)]
        raise ValueError(
            f"checkpoint {path} belongs to another configuration (it differs in "
            f"{', '.join(differing)}); give another path, or delete it to start afresh"
        )
    return state


def _check_archive(stream: BinaryIO) -> None:
    """Require the checksum of everything in a torch file, which torch itself does not look at.

    torch.save stores what it writes; a packed member could be far larger than its file.
    """
    with zipfile.ZipFile(stream) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("a member of the archive is packed")
        if (name := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {name} is wrong")
    stream.seek(0)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits of the names, shapes, dtypes and contents of tensors."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
