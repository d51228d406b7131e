"""Reading data files that may be half-written, corrupt or hostile: a file is sound or it is named.

A missing file is a FileNotFoundError, an unsound one a ValueError; both messages begin with its
path. The MNIST family is stored as IDX files: a magic number, the sizes, then the bytes.
"""

import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

# Two zero bytes, type 8 = unsigned byte, then the number of dimensions.
_IDX_MAGIC = 0x0800
_MAX_BYTES = 256 * 2**20  # the largest file of any of the data sets has 155 MB


def read_verified(path: Path, digest: str) -> bytes:
    """Read a whole file and compare its checksum before anybody interprets a byte of it.

    Args:
        path: the file.
        digest: its MD5 or SHA-256 in hexadecimal; the length tells which. (MD5 is what torchvision
            publishes. It can no longer stop an author of two files, but nobody can make a file to
            match a given one.)

    Returns:
        The content, bit for bit what was verified.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the checksum differs, as it does where no more than 256 MB of a file are read.
    """
    content = _read(path)
    algorithm = {32: "md5", 64: "sha256"}[len(digest)]
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != digest:
        raise ValueError(
            f"{path} is corrupt or half-written: its {algorithm} is {found}, expected {digest}"
        )
    return content


def read_idx(path: Path, shape: tuple[int, ...], digest: str | None = None) -> Tensor:
    """Read an IDX file of bytes, from `path`.gz where that exists, else from `path` itself.

    The archive goes first because it carries a checksum; an extracted copy beside it may be what an
    interrupted extraction left.

    Args:
        path: the file without ".gz".
        shape: the shape it must have.
        digest: checksum of the archive; without one, gzip's own CRC-32 has to do.

    Returns:
        uint8 tensor of that shape.

    Raises:
        FileNotFoundError: neither file exists.
        ValueError: a checksum, the magic number, the shape or the length is wrong.
    """
    archive = path.with_name(path.name + ".gz")
    size = 4 + 4 * len(shape) + math.prod(shape)
    if archive.is_file():
        packed = read_verified(archive, digest) if digest else _read(archive)
        path, content = archive, _decompress(archive, packed, size + 1)
    elif path.is_file():
        content = _read(path, size + 1)
    else:
        raise FileNotFoundError(f"{archive} is missing")

    magic = _IDX_MAGIC | len(shape)
    if content[:4] != struct.pack(">I", magic):
        raise ValueError(
            f"{path} is corrupt: it begins with 0x{content[:4].hex()}, not with 0x{magic:08x}, the "
            f"mark of an IDX file of bytes with {len(shape)} dimensions"
        )
    expected_sizes = struct.pack(f">{len(shape)}I", *shape)
    sizes = content[4 : 4 + len(expected_sizes)]
    if sizes != expected_sizes:
        found = tuple(size for (size,) in struct.iter_unpack(">I", sizes[: len(sizes) // 4 * 4]))
        raise ValueError(f"{path} is corrupt: it announces shape {found}, expected {shape}")
    if len(content) != size:
        held = f"{len(content):,}" if len(content) < size else f"more than {size:,}"
        raise ValueError(f"{path} is corrupt or half-written: {held} bytes of {size:,}")
    flat = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * len(shape))
    return flat.view(shape)


def read_images_and_labels(
    folder: Path, prefix: str, count: int, n_classes: int, digests: Mapping[str, str]
) -> tuple[Tensor, Tensor]:
    """Read one part of a data set of the MNIST family.

    Args:
        folder: where `prefix`-images-idx3-ubyte and `prefix`-labels-idx1-ubyte lie, with or
            without ".gz".
        prefix: "train" or "t10k".
        count: N, the number of images that the part must have.
        n_classes: K; labels lie in 0..K-1.
        digests: checksums of the archives by file name.

    Returns:
        images (N, 1, 28, 28) float32 in [0, 1], labels (N,) int64.

    Raises:
        FileNotFoundError, ValueError: as `read_idx`; also a label that is no class.
    """
    names = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    shapes = (count, 28, 28), (count,)
    images, labels = (
        read_idx(folder / name, shape, digests.get(f"{name}.gz"))
        for name, shape in zip(names, shapes, strict=True)
    )
    if labels.max() >= n_classes:
        raise ValueError(
            f"{folder / names[1]} is corrupt: label {int(labels.max())}, expected "
            f"0..{n_classes - 1}"
        )
    return pixels(images.unsqueeze(1)), labels.long()


def pixels(images: Tensor) -> Tensor:
    """Bytes 0..255 as float32 in [0, 1]: x / 255."""
    return images.to(torch.float32).div_(255)


def _read(path: Path, limit: int = _MAX_BYTES) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    with path.open("rb") as stream:
        # A buffer of the whole limit would be taken for the smallest file.
        return stream.read(min(limit, os.fstat(stream.fileno()).st_size))


def _decompress(archive: Path, packed: bytes, limit: int) -> bytes:
    """At most `limit` bytes of the archive's content: a gzip bomb stops there."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            return stream.read(limit)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{archive} is corrupt or half-written: {error}") from None
