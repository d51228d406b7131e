"""The data set inside the package: 10,000 Fashion-MNIST images in the paper's 5,000/5,000 protocol.

The images are the official Fashion-MNIST test file (MIT licence, beside it). Their order is fixed
by a hash, not by a random generator, so that no version of Python, numpy or torch can change who is
a training image:

    order = sorted(range(10_000), key=lambda i: sha256(b"fashion_mnist_small/%d" % i).digest())

The first 4,500 are for training, the next 500 for validation, the last 5,000 for testing. The order
ignores the labels, so classes are as unequal as chance makes them: 426 to 489 of each for training,
456 to 524 for testing.
"""

from hashlib import sha256
from pathlib import Path

import torch

from ._verified import read_images_and_labels
from .dataset import Dataset, Split

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_FOLDER = Path(__file__).with_name("embedded")
_SHA256 = {
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
_SIZES = (4_500, 500, 5_000)


def load_embedded() -> Dataset:
    """Read the embedded Fashion-MNIST images and split them 4,500 / 500 / 5,000.

    Returns:
        The data set "fashion_mnist_small".

    Raises:
        FileNotFoundError, ValueError: the package's own files are missing or damaged.
    """
    try:
        images, labels = read_images_and_labels(
            _FOLDER, "t10k", sum(_SIZES), len(FASHION_CLASSES), _SHA256
        )
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f"{error}. To restore it: git checkout -- calibcourse/data/embedded, or install "
            "calibcourse again"
        ) from None
    parts = torch.tensor(split_order()).split(_SIZES)
    return Dataset(
        "fashion_mnist_small",
        FASHION_CLASSES,
        *(Split(images[part], labels[part]) for part in parts),
    )


def split_order() -> list[int]:
    """The fixed order of the 10,000 images: by the SHA-256 of "fashion_mnist_small/<index>".

    Returns:
        A permutation of 0..9999: training, validation and test indices, one after another.

    Example:
        >>> split_order()[:3]
        [7560, 6593, 65]
    """
    return sorted(
        range(sum(_SIZES)), key=lambda index: sha256(b"fashion_mnist_small/%d" % index).digest()
    )
