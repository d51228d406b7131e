"""Find, fetch, verify and load a data set by its name."""

import os
import tarfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .._checks import check_choice
from ._torchvision import import_torchvision
from ._verified import pixels, read_images_and_labels, read_verified
from .cifar10_small import OFFICIAL_FILE, SMALL_FILE, load_official, load_small
from .dataset import Dataset, Split
from .fashion_mnist_small import FASHION_CLASSES, load_embedded


@dataclass(frozen=True)
class _Source:
    """A data set that torchvision knows."""

    torchvision_name: str
    folder: str  # under the root, where torchvision puts the files
    megabytes: int  # to download
    classes: tuple[str, ...] = ()  # CIFAR stores its own
    system_folder: Path | None = None  # where a Linux distribution puts the same archives


_SOURCES = {
    "fashion_mnist": _Source(
        "FashionMNIST",
        "FashionMNIST/raw",
        31,
        FASHION_CLASSES,
        Path("/usr/share/datasets/fashion-mnist"),  # Debian's package dataset-fashion-mnist
    ),
    "mnist": _Source("MNIST", "MNIST/raw", 12, tuple("0123456789")),
    "kmnist": _Source(
        "KMNIST",
        "KMNIST/raw",
        21,
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "cifar10": _Source("CIFAR10", "cifar-10-batches-py", 170),
    "cifar100": _Source("CIFAR100", "cifar-100-python", 169),
}
_MNIST_COUNTS = {"train": 60_000, "t10k": 10_000}
_N_VALIDATION = 5_000

DATASETS = ("fashion_mnist_small", "cifar10_small", *_SOURCES)


def load_dataset(
    name: str, root: str | os.PathLike | None = None, download: bool = False
) -> Dataset:
    """Load a data set by name: images in [0, 1] and labels, for training, validation and testing.

    "fashion_mnist_small" lies inside the package and needs neither `root` nor a network: 4,500 /
    500 / 5,000 images; `calibcourse.data.fashion_mnist_small` says which. The others have their
    official training and test parts, of which the last 5,000 training images, in file order, become
    the validation part.

    Every file is verified before it is used: archives and CIFAR's pickles by checksum, files that
    somebody extracted by magic number, shape, length and range of labels.

    Args:
        name: "fashion_mnist_small", "cifar10_small", "fashion_mnist", "mnist", "kmnist", "cifar10"
            or "cifar100".
        root: the folder that holds torchvision's folders (FashionMNIST, cifar-10-batches-py, ...).
            Default: the environment variable CALIBCOURSE_DATA; without it `.data` at the top of the
            checkout, or in the current folder if the package was installed without one. Debian's
            package dataset-fashion-mnist is found where it installs itself.
        download: fetch what is missing or damaged into `root`; otherwise nothing is ever fetched.

    Returns:
        The data set: inputs float32 (N, C, H, W) in [0, 1], target int64 (N,).

    Raises:
        ValueError: an unknown name; a damaged file, named, with the remedy.
        FileNotFoundError: the data set is not there; the message has the call that gets it.
        OSError: the download failed; the message says why, and no half-downloaded archive is left.

    Example:
        >>> load_dataset("fashion_mnist_small").train
        Split(4,500 images of 1 × 28 × 28)
    """
    check_choice(name, "name", DATASETS)
    if name == "fashion_mnist_small":
        return load_embedded()
    try:
        return _load(name, root)
    except (FileNotFoundError, ValueError):
        if not download:
            raise
    _download(name, root)
    return _load(name, root)


def find_dataset(name: str, root: str | os.PathLike | None = None) -> Path | None:
    """The folder that holds the files of a data set, or None; nothing in it is read.

    Args:
        name: as in `load_dataset`.
        root: as in `load_dataset`.

    Returns:
        The existing folder from which `load_dataset` would read.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> find_dataset("fashion_mnist_small").name
        'embedded'
    """
    check_choice(name, "name", DATASETS)
    if name == "fashion_mnist_small":
        return Path(__file__).with_name("embedded")
    if name == "cifar10_small":
        files = (_official_file(root), data_folder(root) / SMALL_FILE)
        return next((file.parent for file in files if file.is_file()), None)
    source = _SOURCES[name]
    candidates = (data_folder(root) / source.folder, source.system_folder)
    return next((folder for folder in candidates if folder and folder.is_dir()), None)


def data_folder(root: str | os.PathLike | None = None) -> Path:
    """The root of downloaded data: `root`, else CALIBCOURSE_DATA, else `.data` (`load_dataset`)."""
    if root is None:
        root = os.environ.get("CALIBCOURSE_DATA") or _default_root()
    return Path(root).expanduser()


def _default_root() -> Path:
    top = Path(__file__).resolve().parents[2]
    return (top if (top / "pyproject.toml").is_file() else Path()) / ".data"


def _load(name: str, root: str | os.PathLike | None) -> Dataset:
    """Read and verify the files of a data set; say how to get those that are missing or damaged."""
    source = _SOURCES[_downloaded_as(name)]
    where = "" if root is None else f', root="{root}"'
    remedy = (
        f"To download it (about {source.megabytes} MB): "
        f'load_dataset("{name}"{where}, download=True). '
        "If you have it elsewhere, pass that folder as root= or set CALIBCOURSE_DATA to it"
    )
    try:
        return _read_cifar10_small(root) if name == "cifar10_small" else _read_whole(name, root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name} is not here: {error}. {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {error}. {remedy}") from None


def _downloaded_as(name: str) -> str:
    return "cifar10" if name == "cifar10_small" else name


def _official_file(root: str | os.PathLike | None) -> Path:
    return data_folder(root) / _SOURCES["cifar10"].folder / OFFICIAL_FILE


def _read_cifar10_small(root: str | os.PathLike | None) -> Dataset:
    official, small = _official_file(root), data_folder(root) / SMALL_FILE
    if official.is_file():
        digest = dict(_torchvision_class(_SOURCES["cifar10"]).train_list)[OFFICIAL_FILE]
        return load_official(official.parent, digest)
    if small.is_file():
        return load_small(small)
    raise FileNotFoundError(f"neither {official} nor {small} is there")


def _read_whole(name: str, root: str | os.PathLike | None) -> Dataset:
    """A data set's official parts, the last training images split off for validation."""
    source = _SOURCES[name]
    folder = find_dataset(name, root)
    if folder is None:
        raise FileNotFoundError(f"{data_folder(root) / source.folder} is missing")
    read = _read_mnist_family if source.classes else _read_cifar
    classes, train, test = read(source, folder)
    images, labels = train
    kept = len(images) - _N_VALIDATION
    return Dataset(
        name,
        classes,
        Split(images[:kept], labels[:kept]),
        Split(images[kept:], labels[kept:]),
        Split(*test),
    )


_Part = tuple[Tensor, Tensor]


def _read_mnist_family(source: _Source, folder: Path) -> tuple[tuple[str, ...], _Part, _Part]:
    # Debian repacks the archives: torchvision's checksums do not apply to them, gzip's own do.
    repacked = folder == source.system_folder
    digests = {} if repacked else dict(_torchvision_class(source).resources)
    train, test = (
        read_images_and_labels(folder, prefix, count, len(source.classes), digests)
        for prefix, count in _MNIST_COUNTS.items()
    )
    return source.classes, train, test


def _read_cifar(source: _Source, folder: Path) -> tuple[tuple[str, ...], _Part, _Part]:
    cifar = _torchvision_class(source)
    # Loading a pickle runs what it says, so not one is opened before all checksums are right.
    # torchvision checks too, but its error does not name the file.
    meta = cifar.meta["filename"], cifar.meta["md5"]
    for filename, digest in (*cifar.train_list, *cifar.test_list, meta):
        read_verified(folder / filename, digest)
    train, test = (cifar(folder.parent, train=part) for part in (True, False))
    return tuple(train.classes), _cifar_part(train), _cifar_part(test)


def _cifar_part(part) -> _Part:
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2)  # NHWC to NCHW
    return pixels(images).contiguous(), torch.tensor(part.targets)


def _download(name: str, root: str | os.PathLike | None) -> None:
    """Let torchvision fetch and extract what is missing or damaged under the root."""
    source = _SOURCES[_downloaded_as(name)]
    folder = data_folder(root)
    cls = _torchvision_class(source)
    # `download` needs the root alone; the constructor would go on to load what it finds.
    dataset = cls.__new__(cls)
    dataset.root = str(folder)
    # torchvision skips the download if the main files are there, sound or not. We know better:
    # something is wrong. Archives whose checksum is right are still not fetched again.
    dataset._check_exists = dataset._check_integrity = lambda: False
    try:
        dataset.download()
    except (OSError, RuntimeError, EOFError, zlib.error, tarfile.TarError) as error:
        _remove_half_downloaded(cls, folder / source.folder, folder)
        reason = " ".join(str(error).split()).rstrip(".")
        raise OSError(
            f"downloading {name} to {folder} failed: {reason}. Try again, or copy the folder "
            f"{source.folder} there from a machine that has it"
        ) from error


def _remove_half_downloaded(cls, *folders: Path) -> None:
    """Remove the archive that a failed download cut short: it may be what fills the disk."""
    archives = getattr(cls, "resources", None) or [(cls.filename, cls.tgz_md5)]
    for path, digest in ((folder / name, md5) for folder in folders for name, md5 in archives):
        with suppress(OSError):
            try:
                read_verified(path, digest)
            except ValueError:
                path.unlink()


def _torchvision_class(source: _Source):
    return getattr(import_torchvision().datasets, source.torchvision_name)
