"""Small made files of every format.

They differ from the official ones in counts and checksums only, so the tests replace those numbers
(in torchvision's tables and in ours) and run everything else for real.
"""

import gzip
import hashlib
import struct

import numpy as np
import torch

MNIST_FAMILY = {"fashion_mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}


CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


N_TRAIN, N_VALIDATION, N_TEST = 14, 4, 6  # of the small files; the validation part is inside train


def idx_file(array):
    """An IDX file of bytes, written from the format's description."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def made_images(n, *size):
    return np.random.default_rng(n).integers(0, 256, (n, *size), dtype=np.uint8)


def made_labels(n, n_classes=10):
    return np.random.default_rng(n + 1).integers(0, n_classes, n, dtype=np.uint8)


MNIST_FILES = {
    "train-images-idx3-ubyte": idx_file(made_images(N_TRAIN, 28, 28)),
    "train-labels-idx1-ubyte": idx_file(made_labels(N_TRAIN)),
    "t10k-images-idx3-ubyte": idx_file(made_images(N_TEST, 28, 28)),
    "t10k-labels-idx1-ubyte": idx_file(made_labels(N_TEST)),
}


MNIST_ARCHIVES = {f"{name}.gz": gzip.compress(c, mtime=0) for name, c in MNIST_FILES.items()}


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def write_files(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def assert_is_made_data(dataset, size, train_images, train_labels, test_images, test_labels):
    kept = N_TRAIN - N_VALIDATION
    expected = {
        "train": (train_images[:kept], train_labels[:kept]),
        "validation": (train_images[kept:], train_labels[kept:]),
        "test": (test_images, test_labels),
    }
    for part, (images, labels) in expected.items():
        split = getattr(dataset, part)
        assert split.inputs.dtype == torch.float32
        assert split.inputs.shape == (len(labels), *size)
        assert split.inputs.is_contiguous()
        # x / 255 in float32, the same single rounding on both sides.
        assert torch.equal(split.inputs, torch.from_numpy(images).reshape(-1, *size) / 255)
        assert torch.equal(split.target, torch.from_numpy(np.asarray(labels, dtype=np.int64)))


def assert_is_made_mnist(dataset):
    made = made_images(N_TRAIN, 28, 28), made_labels(N_TRAIN)
    assert_is_made_data(
        dataset, (1, 28, 28), *made, made_images(N_TEST, 28, 28), made_labels(N_TEST)
    )


IMAGES_FILE, LABELS_FILE = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


ARCHIVE = f"{IMAGES_FILE}.gz"


BROKEN_ARCHIVES = {
    "half-downloaded": MNIST_ARCHIVES[ARCHIVE][: len(MNIST_ARCHIVES[ARCHIVE]) // 2],
    "of another data set": gzip.compress(idx_file(255 - made_images(N_TRAIN, 28, 28))),
    "an error page": b"<html>404</html>",
    "empty": b"",
}
