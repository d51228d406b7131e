"""Arrays of scores and labels from a file that anybody may have written, of five formats."""

import csv
import importlib
import importlib.util
import io
import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import torch

from .._files import open_regular, shortened

MAX_BYTES = 4 * 2**30  # of an array; a million samples of a thousand classes fit
_MAX_LINE = 2**20  # bytes of a table's first line; the names of 20,000 classes fit
SCORES = {
    "logits": None,  # the name that everybody uses, also for what is no logits
    "scores": None,
    "probabilities": "probabilities",
    "probs": "probabilities",
    "log_probabilities": "log-probabilities",
    "log_probs": "log-probabilities",
}
LABELS = ("target", "targets", "labels", "label", "y")


def read_arrays(
    path: str | os.PathLike, labels: str | os.PathLike | None = None
) -> tuple[str, np.ndarray, np.ndarray]:
    """Read scores and labels as they stand in a file.

    `.npz`, `.pt` (a dict of tensors) and `.safetensors` hold both by name; `.csv` and `.tsv` have a
    first line that names the column of labels, and all others are scores; `.npy` holds the scores,
    and the labels come from a file of their own. Sizes are checked before memory is taken.

    Args:
        path: a regular file; its ending says the format.
        labels: a file that holds the labels alone or by name; None where `path` holds them.

    Returns:
        The name of the scores (a key of SCORES), the scores and the labels, as they stand there.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is no regular file, or cannot be read.
        ValueError: unknown ending, damaged, too large, or without scores or labels; the file is
            named, and the names of what it holds.

    Example:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
        >>> np.savez(path, logits=np.eye(3), target=np.array([0, 1, 2]))
        >>> name, scores, target = read_arrays(path)
        >>> name, scores.shape, target.shape
        ('logits', (3, 3), (3,))
    """
    content = _read(path, tuple(SCORES) + (() if labels else LABELS))
    name, scores = _pick(content, tuple(SCORES), path, "scores")
    if labels is None and content.get("") is not None:
        raise ValueError(f"{path} holds one array: give the labels by --labels FILE")
    if labels is None:
        return name, scores, _pick(content, LABELS, path, "labels")[1]
    return name, scores, _pick(_read(labels, LABELS), LABELS, labels, "labels")[1]


Content = dict[str, np.ndarray | None]  # name -> array, or None where it was not asked for


def _read(path: str | os.PathLike, wanted: tuple[str, ...]) -> Content:
    ending = Path(path).suffix.lower()
    if ending not in _READERS:
        raise ValueError(f"{path} must end in {', '.join(_READERS)}; got {ending or 'no ending'}")
    with open_regular(path) as stream:
        try:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"the file must take at most {MAX_BYTES} bytes, got {size}")
            return _READERS[ending](stream, wanted)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {shortened(error)}") from error
        except Exception as error:  # a damaged file raises errors of many types
            raise ValueError(f"{path} must be a sound {ending} file: {shortened(error)}") from error


def _pick(
    content: Content, names: tuple[str, ...], path: str | os.PathLike, what: str
) -> tuple[str, np.ndarray]:
    found = [name for name in names if content.get(name) is not None]
    if len(found) == 1:
        return found[0], content[found[0]]
    if len(found) > 1:
        raise ValueError(f"{path} must hold one array of {what}, got {', '.join(found)}")
    nameless = content.get("")
    if nameless is not None:
        return names[0], nameless
    there = shortened(", ".join(sorted(content))) or "nothing"
    raise ValueError(
        f"{path} holds no {what}: expected one of {', '.join(names)}, found {there}. Write it by "
        "numpy.savez(path, logits=..., target=...), or give the labels by --labels FILE"
    )


def _read_npz(stream: IO[bytes], wanted: tuple[str, ...]) -> Content:
    content: Content = {}
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            content[name] = None
            if name in wanted:
                content[name] = _read_array(archive, member, name)
    return content


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    with archive.open(member) as stream:
        _check_header(stream, member.file_size, name)
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _check_header(stream: IO[bytes], size: int, name: str) -> None:
    """Refuse an .npy array that is no numbers, too large, or promises more than is there."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = readers[version](stream)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{name} must have a sound header of .npy format 1.0 or 2.0") from error
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise ValueError(f"{name} must hold numbers of at most 64 bits, got {dtype}")
    if any(length < 0 for length in shape):
        raise ValueError(f"{name} must have a shape of whole numbers, got {shape}")
    _check_size(name, math.prod(shape) * dtype.itemsize, size - stream.tell())


def _check_size(name: str, size: int, there: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"{name} must take at most {MAX_BYTES} bytes, got {size}")
    if size > there:
        raise ValueError(f"{name} is cut off: {there} bytes are there of {size}")


def _read_npy(stream: IO[bytes], wanted: tuple[str, ...]) -> Content:
    _check_header(stream, os.fstat(stream.fileno()).st_size, "the array")
    stream.seek(0)
    return {"": np.lib.format.read_array(stream, allow_pickle=False)}


def _read_table(stream: IO[bytes], wanted: tuple[str, ...], delimiter: str) -> Content:
    """A table of numbers: the column named as labels, and all others as scores."""
    line = stream.readline(_MAX_LINE)
    if len(line) == _MAX_LINE:
        raise ValueError(f"the first line must take less than {_MAX_LINE} bytes")
    text = line.decode("utf-8-sig")
    names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter))]
    if all(_is_number(name) for name in names):
        raise ValueError(
            "the first line must name the columns, that of the labels 'target'; got "
            + ("numbers" if names else "nothing")
        )
    columns = [i for i, name in enumerate(names) if name.lower() in LABELS]
    if len(columns) > 1 or (not columns and LABELS[0] in wanted):
        raise ValueError(
            f"the first line must name one column of labels by {' or '.join(LABELS)}; "
            f"got {', '.join(names)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no line: said below
        values = np.loadtxt(io.TextIOWrapper(stream, "utf-8"), delimiter=delimiter, ndmin=2)
    if not len(values):
        raise ValueError("there must be a line of numbers for each sample, got none")
    if values.shape[1] != len(names):
        raise ValueError(f"every line must hold {len(names)} values, got {values.shape[1]}")
    content: Content = {"logits": np.delete(values, columns, axis=1)}
    if columns:
        content[LABELS[0]] = values[:, columns[0]]
    return content


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_pt(stream: IO[bytes], wanted: tuple[str, ...]) -> Content:
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("a .pt file holds nothing compressed")
    stream.seek(0)
    loaded = torch.load(stream, map_location="cpu", weights_only=True)
    if isinstance(loaded, torch.Tensor):
        return {"": _to_numpy("the tensor", loaded)}
    if not isinstance(loaded, dict):
        raise ValueError(f"it must hold a dict of tensors, got {type(loaded).__name__}")
    return {
        str(name): _to_numpy(name, value) if name in wanted else None
        for name, value in loaded.items()
    }


def _read_safetensors(stream: IO[bytes], wanted: tuple[str, ...]) -> Content:
    if importlib.util.find_spec("safetensors") is None:
        raise ValueError("reading .safetensors needs the package safetensors: pip install it")
    library = importlib.import_module("safetensors")
    with library.safe_open(stream.name, framework="pt") as content:
        names = list(content.keys())
        return {
            name: _to_numpy(name, content.get_tensor(name)) if name in wanted else None
            for name in names
        }


def _to_numpy(name: str, tensor: object) -> np.ndarray:
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise ValueError(f"{name} must be a dense tensor of real numbers, got {tensor.dtype}")
    there = tensor.untyped_storage().nbytes()  # an expanded tensor promises more than it holds
    _check_size(name, tensor.numel() * tensor.element_size(), there)
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


_READERS = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".csv": lambda stream, wanted: _read_table(stream, wanted, ","),
    ".tsv": lambda stream, wanted: _read_table(stream, wanted, "\t"),
    ".pt": _read_pt,
    ".safetensors": _read_safetensors,
}
