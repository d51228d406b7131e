"""The first 4,000 images of CIFAR-10's official training file, in file order.

The first 2,000 are for training, the next 400 for validation, the last 1,600 for testing. They are
read from the official `data_batch_1` or from a small file `cifar10_small.npz`, whichever is there;
pixels and labels are held to the same digests either way.
"""

import hashlib
import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from ._verified import pixels, read_verified
from .dataset import Dataset, Split

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SMALL_FILE = "cifar10_small.npz"
OFFICIAL_FILE = "data_batch_1"

_SIZES = (2_000, 400, 1_600)
_COUNT = sum(_SIZES)
_SHAPE = (_COUNT, 32, 32, 3)
_ARRAYS = {"images": (_SHAPE, np.dtype(np.uint8)), "labels": ((_COUNT,), np.dtype(np.int64))}
_MAX_HEADER = 128  # bytes before the numbers, as numpy writes them for such arrays
# Of the images as bytes in NHWC order, and of the labels as one byte each.
_SHA256 = {
    "images": "bac45b45504ed1289a3f437be4bfbefece248abbc094a428a0b4dfab00e776ae",
    "labels": "2c365f60663d4e0eae47b2e7e1f85bef4375b295095eff8ce46a32be9415473c",
}


def load_official(folder: Path, digest: str) -> Dataset:
    """Read the images from CIFAR-10's own first training file.

    Args:
        folder: holds `data_batch_1`.
        digest: the official MD5 of that file.

    Returns:
        The data set "cifar10_small".

    Raises:
        FileNotFoundError, ValueError: the file is missing, or is not the official one.
    """
    path = folder / OFFICIAL_FILE
    # Loading a pickle runs what it says: only after the checksum has said whose it is.
    batch = pickle.loads(read_verified(path, digest), encoding="latin1")
    planes = batch["data"][:_COUNT].reshape(_COUNT, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return _dataset(path, images, np.array(batch["labels"][:_COUNT]))


def load_small(path: Path) -> Dataset:
    """Read the images from an `.npz` with `images` (4000, 32, 32, 3) uint8 and `labels` int64.

    The sizes in the file's directory are checked before anything is unpacked, and nothing in the
    file is executed.

    Args:
        path: the file.

    Returns:
        The data set "cifar10_small".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no `.npz`, other arrays, or other images or labels than the official ones.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name: _read_array(archive, name) for name in _ARRAYS}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a damaged archive raises errors of many types
        raise ValueError(f"{path} is corrupt or half-written: {error}") from None
    return _dataset(path, arrays["images"], arrays["labels"])


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    shape, dtype = _ARRAYS[name]
    wanted = f"{name} must be {dtype} of shape {shape}"
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        found = ", ".join(sorted(archive.namelist())[:5]) or "nothing"
        raise ValueError(f"{name} is missing, the file holds {found}") from None
    size = math.prod(shape) * dtype.itemsize
    if not size < member.file_size <= size + _MAX_HEADER:
        raise ValueError(f"{wanted}, {size:,} bytes, got {member.file_size:,}")
    # zipfile hands out no more than the size announced, so this is all that can be unpacked.
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    if (array.shape, array.dtype) != (shape, dtype):
        raise ValueError(f"{wanted}, got {array.dtype} of shape {array.shape}")
    return array


def _dataset(path: Path, images: np.ndarray, labels: np.ndarray) -> Dataset:
    if labels.min() < 0 or labels.max() >= len(CIFAR10_CLASSES):
        # As bytes, which are digested, such labels could pass for others.
        raise ValueError(f"{path} has labels outside 0..{len(CIFAR10_CLASSES) - 1}")
    for name, array in (("images", images), ("labels", labels.astype(np.uint8))):
        found = hashlib.sha256(array.tobytes()).hexdigest()
        if found != _SHA256[name]:
            raise ValueError(
                f"{path} does not hold the official {name}: their sha256 is {found}, "
                f"expected {_SHA256[name]}"
            )
    inputs = pixels(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    target = torch.from_numpy(labels.astype(np.int64))
    parts = zip(inputs.split(_SIZES), target.split(_SIZES), strict=True)
    return Dataset("cifar10_small", CIFAR10_CLASSES, *(Split(*part) for part in parts))
