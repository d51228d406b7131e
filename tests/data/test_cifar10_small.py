"""The small CIFAR-10 data set: from the official file or a small one, and from nothing else.

The files made here have the official sizes and made-up pixels; the tests put the digests of those
in the place of the official ones and run everything else for real.
"""

import hashlib
import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from calibcourse.data import cifar10_small, find_dataset, load_dataset, loading
from calibcourse.data._torchvision import import_torchvision

N = 4_000
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, N)
ROWS_IN_OFFICIAL_FILE = 4_010  # the real one has 10,000


@pytest.fixture(autouse=True)
def digests(monkeypatch):
    """The digests of the made-up images, unless a test asks for the official ones."""
    table = {"images": sha256(IMAGES.tobytes()), "labels": sha256(bytes(LABELS.tolist()))}
    official = dict(cifar10_small._SHA256)
    monkeypatch.setattr(cifar10_small, "_SHA256", table)
    return official


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def npz(compressed=False, **arrays):
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


GOOD = npz(images=IMAGES, labels=LABELS)


def write_small(root, content=GOOD):
    path = root / "cifar10_small.npz"
    path.write_bytes(content)
    return path


def write_official(root, monkeypatch, images=IMAGES, labels=LABELS):
    """`data_batch_1` as CIFAR-10 has it: a pickle of rows of three planes, more than wanted."""
    rows = np.zeros((ROWS_IN_OFFICIAL_FILE, 3072), np.uint8)
    rows[:N] = images.transpose(0, 3, 1, 2).reshape(N, -1)
    batch = {"data": rows, "labels": [*labels.tolist(), *[0] * (len(rows) - N)]}
    content = pickle.dumps(batch, protocol=2)
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(content)
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    cls = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(cls, "train_list", [("data_batch_1", digest)])
    return folder / "data_batch_1"


def assert_is_made_data(dataset):
    assert dataset.name == "cifar10_small" and len(dataset.classes) == 10
    start = 0
    for part, count in (("train", 2_000), ("validation", 400), ("test", 1_600)):
        split, chosen = getattr(dataset, part), slice(start, start + count)
        expected = torch.from_numpy(IMAGES[chosen].transpose(0, 3, 1, 2).copy())
        assert split.inputs.is_contiguous()
        # x / 255 in float32, the same single rounding on both sides.
        assert torch.equal(split.inputs, expected / 255)
        assert torch.equal(split.target, torch.from_numpy(LABELS[chosen]))
        start += count


@pytest.mark.parametrize("compressed", [False, True])
def test_the_small_file_loads(compressed, tmp_path):
    write_small(tmp_path, npz(compressed, images=IMAGES, labels=LABELS))
    assert_is_made_data(load_dataset("cifar10_small", tmp_path))
    assert find_dataset("cifar10_small", tmp_path) == tmp_path


def test_the_official_file_loads_and_goes_first(tmp_path, monkeypatch):
    path = write_official(tmp_path, monkeypatch)
    write_small(tmp_path, b"not even a zip file")
    assert_is_made_data(load_dataset("cifar10_small", tmp_path))
    assert find_dataset("cifar10_small", tmp_path) == path.parent


def test_the_classes_are_in_the_official_order():
    # The order of CIFAR-10's own batches.meta, as its web page lists it.
    assert " ".join(cifar10_small.CIFAR10_CLASSES) == (
        "airplane automobile bird cat deer dog frog horse ship truck"
    )


class Planted:
    """A pickle that would leave a trace when loaded."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, "w")


def one_pixel_changed():
    images = IMAGES.copy()
    images[-1, -1, -1, -1] ^= 1
    return images


def a_label(value):
    labels = LABELS.copy()
    labels[7] = value
    return labels


DAMAGED = {
    "empty": (b"", "half-written"),
    "an error page": (b"<html>404</html>", "half-written"),
    "cut short": (GOOD[: len(GOOD) // 2], "half-written"),
    "a flipped byte": (GOOD[:5000] + bytes([GOOD[5000] ^ 1]) + GOOD[5001:], "CRC"),
    "other names": (npz(x=IMAGES, y=LABELS), r"images is missing, the file holds x\.npy, y\.npy"),
    "no labels": (npz(images=IMAGES), "labels is missing"),
    "floats": (npz(images=IMAGES / 255, labels=LABELS), r"images must be uint8 .* got 98,304,"),
    "labels as bytes": (npz(images=IMAGES, labels=LABELS.astype(np.uint8)), "labels must be int64"),
    "labels as floats": (npz(images=IMAGES, labels=LABELS * 1.0), "labels must be int64.*float64"),
    "signed bytes": (npz(images=IMAGES.view(np.int8), labels=LABELS), "images must be.*got int8"),
    "big-endian labels": (npz(images=IMAGES, labels=LABELS.astype(">i8")), "got >i8"),
    "planes first": (
        npz(images=IMAGES.transpose(0, 3, 1, 2).copy(), labels=LABELS),
        r"images must be .*\(4000, 3, 32, 32\)",
    ),
    "fewer images": (npz(images=IMAGES[1:], labels=LABELS), "images must be"),
    "a changed pixel": (
        npz(images=one_pixel_changed(), labels=LABELS),
        "does not hold the official images",
    ),
    "a changed label": (
        npz(images=IMAGES, labels=a_label((LABELS[7] + 1) % 10)),
        "official labels",
    ),
    "a negative label": (npz(images=IMAGES, labels=a_label(-1)), "outside 0..9"),
    # As a byte it would be the right label.
    "a label that wraps": (npz(images=IMAGES, labels=a_label(LABELS[7] + 256)), "outside 0..9"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_small_file_is_named_with_the_remedy(content, message, tmp_path):
    write_small(tmp_path, content)
    with pytest.raises(ValueError, match=rf"cifar10_small\.npz.*{message}") as caught:
        load_dataset("cifar10_small", tmp_path)
    assert f'load_dataset("cifar10_small", root="{tmp_path}", download=True)' in str(caught.value)


def test_a_pickle_in_the_small_file_is_not_loaded(tmp_path):
    trace = tmp_path / "trace"
    payload = np.array([Planted(trace)], dtype=object)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, payload, allow_pickle=True)
    # Padded to the size that is wanted, so that nothing but its header gives it away.
    padded = buffer.getvalue().ljust(128 + IMAGES.nbytes, b"\0")
    path = tmp_path / "cifar10_small.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", padded)
        archive.writestr("labels.npy", npz_member(LABELS))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded when allow_pickle=False"):
        load_dataset("cifar10_small", tmp_path)
    assert not trace.exists()


def npz_member(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    return buffer.getvalue()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    zeros = npz(compressed=True, images=np.zeros((200, N, 32, 3), np.uint8), labels=LABELS)
    write_small(tmp_path, zeros)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="images must be"):
            load_dataset("cifar10_small", tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20  # the 77 MB of the bomb were never there


def test_a_member_longer_than_it_says_is_cut_and_refused(tmp_path):
    # The directory announces the right size, the stream goes on: zipfile stops, the CRC is wrong.
    longer = npz_member(IMAGES) + bytes(10**6)
    path = tmp_path / "cifar10_small.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", longer)
        archive.writestr("labels.npy", npz_member(LABELS))
        archive.getinfo("images.npy").file_size = len(longer) - 10**6
    with pytest.raises(ValueError, match="half-written"):
        load_dataset("cifar10_small", tmp_path)


def test_a_planted_official_file_is_not_executed(tmp_path, monkeypatch):
    path = write_official(tmp_path, monkeypatch)
    trace = tmp_path / "trace"
    path.write_bytes(pickle.dumps(Planted(trace)))
    with pytest.raises(ValueError, match="data_batch_1 is corrupt or half-written: its md5"):
        load_dataset("cifar10_small", tmp_path)
    assert not trace.exists()


def test_an_official_file_with_other_images_is_refused(tmp_path, monkeypatch):
    write_official(tmp_path, monkeypatch, images=one_pixel_changed())
    with pytest.raises(ValueError, match="does not hold the official images"):
        load_dataset("cifar10_small", tmp_path)


def test_absence_is_told_with_the_call_that_gets_it(tmp_path):
    assert find_dataset("cifar10_small", tmp_path) is None
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset("cifar10_small", tmp_path)
    message = str(caught.value)
    assert "data_batch_1" in message and "cifar10_small.npz" in message
    assert "about 170 MB" in message
    assert f'load_dataset("cifar10_small", root="{tmp_path}", download=True)' in message


def test_download_fetches_the_official_archive(tmp_path, monkeypatch):
    asked = []

    def fetch(name, root):
        asked.append((name, root))
        write_official(tmp_path, monkeypatch)

    monkeypatch.setattr(loading, "_download", fetch)
    assert_is_made_data(load_dataset("cifar10_small", tmp_path, download=True))
    assert asked == [("cifar10_small", tmp_path)]
    assert loading._SOURCES[loading._downloaded_as("cifar10_small")].torchvision_name == "CIFAR10"


def test_the_real_images_are_the_official_ones(digests, monkeypatch):
    if find_dataset("cifar10_small") is None:
        pytest.skip("cifar10_small is not on this machine")
    monkeypatch.setattr(cifar10_small, "_SHA256", digests)
    dataset = load_dataset("cifar10_small")
    assert [len(part.target) for part in (dataset.train, dataset.validation, dataset.test)] == [
        2_000,
        400,
        1_600,
    ]
    # CIFAR-10's first training image is a frog, its second and third are trucks.
    assert [dataset.classes[label] for label in dataset.train.target[:3]] == [
        "frog",
        "truck",
        "truck",
    ]
