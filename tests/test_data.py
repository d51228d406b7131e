"""Data sets: the embedded one is exactly the recorded one; files of every format, sound and broken.

The small files made here differ from the official ones in counts and checksums only, so the tests
replace those numbers (in torchvision's tables and in ours) and run everything else for real.
"""

import dataclasses
import gzip
import hashlib
import itertools
import pickle
import struct
import tarfile
import threading
import tracemalloc
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from calibcourse import data
from calibcourse.data import (
    Dataset,
    Split,
    fashion_mnist_small,
    find_dataset,
    load_dataset,
    loading,
)
from calibcourse.data._torchvision import import_torchvision
from calibcourse.data.fashion_mnist_small import split_order

MNIST_FAMILY = {"fashion_mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}
CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
N_TRAIN, N_VALIDATION, N_TEST = 14, 4, 6  # of the small files; the validation part is inside train


# --- What a split and a data set are ---------------------------------------------------------


def make_split(n=3, n_classes=3, size=(1, 2, 2)):
    return Split(torch.rand(n, *size), torch.arange(n) % n_classes)


def test_repr_is_one_short_line():
    parts = make_split(1200), make_split(300), make_split(3)
    assert repr(parts[0]) == "Split(1,200 images of 1 × 2 × 2)"
    assert repr(Dataset("toy", ("a", "b", "c"), *parts)) == (
        "Dataset(toy: 3 classes, images of 1 × 2 × 2; train 1,200, validation 300, test 3)"
    )


def test_head_is_the_first_images_without_a_copy():
    split = make_split(5)
    head = split.head(2)
    assert len(head) == 2
    assert torch.equal(head.inputs, split.inputs[:2])
    assert torch.equal(head.target, split.target[:2])
    assert head.inputs.data_ptr() == split.inputs.data_ptr()
    assert len(split.head(5)) == 5


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (6, ValueError), (2.0, TypeError)])
def test_head_refuses_what_it_cannot_give(n, error):
    with pytest.raises(error, match="n must"):
        make_split(5).head(n)


def test_to_moves_every_tensor():
    dataset = Dataset("toy", ("a", "b", "c"), make_split(4), make_split(3), make_split(3))
    assert dataset.to("cpu").train.inputs is dataset.train.inputs
    # The meta device stands for "another device" on every machine; it has no values to check.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Split, "__post_init__", lambda self: None)
        patch.setattr(Dataset, "__post_init__", lambda self: None)
        moved = dataset.to("meta")
    for part in (moved.train, moved.validation, moved.test):
        assert part.inputs.device.type == part.target.device.type == "meta"


@pytest.mark.cuda
def test_to_cuda():
    moved = Dataset("toy", ("a", "b", "c"), *(make_split(3) for _ in range(3))).to("cuda")
    assert moved.test.inputs.is_cuda and moved.test.target.is_cuda


IMAGES, LABELS = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("inputs", "target", "error", "message"),
    [
        (IMAGES.numpy(), LABELS, TypeError, "inputs must be a torch.Tensor"),
        ((IMAGES * 255).byte(), LABELS, TypeError, "inputs must have a floating dtype"),
        (IMAGES.flatten(1), LABELS, ValueError, r"inputs must have shape \(N, C, H, W\)"),
        (IMAGES[:0], LABELS[:0], ValueError, "N >= 1"),
        (IMAGES + 0.5, LABELS, ValueError, r"inputs must be pixels in \[0, 1\]"),
        (IMAGES - 0.5, LABELS, ValueError, r"inputs must be pixels in \[0, 1\]"),
        (IMAGES * torch.nan, LABELS, ValueError, "inputs must be finite"),
        (IMAGES, LABELS.float(), TypeError, "target must have dtype torch.int64"),
        (IMAGES, LABELS[:2], ValueError, r"target must have shape \(3,\)"),
        (IMAGES, LABELS - 1, ValueError, "target must lie in"),
    ],
)
def test_split_refuses_what_is_not_images_with_labels(inputs, target, error, message):
    with pytest.raises(error, match=message):
        Split(inputs, target)


def test_dataset_refuses_parts_that_do_not_fit_together():
    good = make_split()
    with pytest.raises(TypeError, match="validation must be a Split"):
        Dataset("toy", ("a", "b", "c"), good, (IMAGES, LABELS), good)
    with pytest.raises(ValueError, match=r"test.target must lie in 0..1"):
        Dataset("toy", ("a", "b"), make_split(n_classes=2), make_split(n_classes=2), good)
    with pytest.raises(ValueError, match="validation must hold images of 1 × 2 × 2"):
        Dataset("toy", ("a", "b", "c"), good, make_split(size=(1, 2, 3)), good)
    with pytest.raises(ValueError, match="classes must name"):
        Dataset("toy", ("a",), good, good, good)


# --- The embedded data set -------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    return load_dataset("fashion_mnist_small")


@pytest.fixture(scope="module")
def torchvision():
    return import_torchvision()


def test_the_order_is_a_permutation_and_the_recorded_one():
    order = split_order()
    assert sorted(order) == list(range(10_000))
    # A changed order would silently move test images into training: the record says so first.
    text = " ".join(map(str, order)).encode()
    assert hashlib.sha256(text).hexdigest() == (
        "c8593d079592b069648fac06d735faaee75a8d9725363e585ed293753063f5cc"
    )


def test_the_parts_are_disjoint_and_cover_the_official_test_file(small, torchvision, tmp_path):
    # torchvision's own reader is the independent library.
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for archive in sorted(find_dataset("fashion_mnist_small").glob("*.gz")):
        (folder / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    images = torchvision.datasets.mnist.read_image_file(folder / "t10k-images-idx3-ubyte")
    labels = torchvision.datasets.mnist.read_label_file(folder / "t10k-labels-idx1-ubyte")
    parts = small.train, small.validation, small.test
    assert [len(part) for part in parts] == [4_500, 500, 5_000]
    order = torch.tensor(split_order())
    inputs = torch.cat([part.inputs for part in parts])
    # Bytes survive the division by 255 and the way back exactly, so equality is exact.
    assert torch.equal((inputs.squeeze(1) * 255).round().byte(), images[order])
    assert torch.equal(torch.cat([part.target for part in parts]), labels[order])


def test_the_embedded_images_are_pixels_in_unit_range(small):
    for part in (small.train, small.validation, small.test):
        assert part.inputs.dtype == torch.float32
        assert part.inputs.shape[1:] == (1, 28, 28)
        assert part.inputs.min() == 0 and part.inputs.max() == 1
        assert part.target.dtype == torch.int64
    assert len(small.classes) == 10


def test_the_documented_class_counts(small):
    train = small.train.target.bincount()
    test = small.test.target.bincount()
    assert (train.min(), train.max(), test.min(), test.max()) == (426, 489, 456, 524)


def test_a_changed_embedded_file_is_not_used(tmp_path, monkeypatch):
    folder = find_dataset("fashion_mnist_small")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(fashion_mnist_small, "_FOLDER", tmp_path)
    load_dataset("fashion_mnist_small")
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(labels.read_bytes())
    content[3000] ^= 1
    labels.write_bytes(content)
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte.gz.*sha256.*git checkout"):
        load_dataset("fashion_mnist_small")
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte.gz is missing.*restore"):
        load_dataset("fashion_mnist_small")


def test_the_licence_lies_beside_the_images():
    text = (find_dataset("fashion_mnist_small") / "LICENSE").read_text(encoding="utf-8")
    assert "2017 Zalando SE" in text
    assert "Permission is hereby granted, free of charge" in text


# --- Files of the MNIST family ---------------------------------------------------------------


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


@pytest.fixture
def small_counts(monkeypatch):
    monkeypatch.setattr(loading, "_MNIST_COUNTS", {"train": N_TRAIN, "t10k": N_TEST})
    monkeypatch.setattr(loading, "_N_VALIDATION", N_VALIDATION)


@pytest.fixture
def mnist_tables(small_counts, monkeypatch, torchvision):
    """torchvision's checksums become those of the small archives.

    Nothing is installed in the system; every mirror is unreachable.
    """
    for name, torchvision_name in MNIST_FAMILY.items():
        cls = getattr(torchvision.datasets, torchvision_name)
        checksums = [(archive, md5(content)) for archive, content in MNIST_ARCHIVES.items()]
        monkeypatch.setattr(cls, "resources", checksums)
        monkeypatch.setattr(cls, "mirrors", ["file:///nowhere/"])
        source = dataclasses.replace(loading._SOURCES[name], system_folder=None)
        monkeypatch.setitem(loading._SOURCES, name, source)


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


@pytest.mark.parametrize("files", [MNIST_FILES, MNIST_ARCHIVES, MNIST_FILES | MNIST_ARCHIVES])
@pytest.mark.parametrize(("name", "folder"), MNIST_FAMILY.items())
def test_mnist_family_loads(name, folder, files, mnist_tables, tmp_path):
    write_files(tmp_path / folder / "raw", files)
    dataset = load_dataset(name, root=tmp_path)
    assert dataset.name == name
    assert len(dataset.classes) == 10
    assert_is_made_mnist(dataset)


def test_mnist_agrees_with_torchvision(mnist_tables, torchvision, tmp_path):
    write_files(tmp_path / "MNIST" / "raw", MNIST_FILES)
    ours = load_dataset("mnist", root=tmp_path).test
    theirs = torchvision.datasets.MNIST(tmp_path, train=False)
    assert torch.equal(ours.inputs.squeeze(1), theirs.data / 255)
    assert torch.equal(ours.target, theirs.targets)


def test_an_archive_is_trusted_before_what_was_extracted_from_it(mnist_tables, tmp_path):
    # An extraction that was killed leaves a short file beside a sound archive.
    killed = {name: content[:100] for name, content in MNIST_FILES.items()}
    write_files(tmp_path / "MNIST" / "raw", MNIST_ARCHIVES | killed)
    assert_is_made_mnist(load_dataset("mnist", root=tmp_path))


IMAGES_FILE, LABELS_FILE = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
GOOD = MNIST_FILES[IMAGES_FILE]
BROKEN_FILES = {
    "cut short": (IMAGES_FILE, GOOD[:-1], "half-written"),
    "cut in its sizes": (IMAGES_FILE, GOOD[:9], r"announces shape \(14,\)"),
    "cut in its magic number": (IMAGES_FILE, GOOD[:3], "0x000008,"),
    "empty": (IMAGES_FILE, b"", "begins with"),
    "too long": (IMAGES_FILE, GOOD + b"\0", "more than"),
    "another magic number": (IMAGES_FILE, b"\x89PNG" + GOOD[4:], "0x89504e47"),
    "floats": (IMAGES_FILE, b"\0\0\x0d\x03" + GOOD[4:], "0x00000d03"),
    "labels for images": (IMAGES_FILE, MNIST_FILES["train-labels-idx1-ubyte"], "0x00000801"),
    "too few images": (
        IMAGES_FILE,
        idx_file(made_images(N_TRAIN - 1, 28, 28)),
        r"shape \(13, 28, 28\), expected \(14, 28, 28\)",
    ),
    "other image size": (IMAGES_FILE, idx_file(made_images(N_TRAIN, 32, 32)), r"\(14, 32, 32\)"),
    "labels of the other part": (
        LABELS_FILE,
        MNIST_FILES["train-labels-idx1-ubyte"],
        r"shape \(14,\), expected \(6,\)",
    ),
    "a label that is no class": (LABELS_FILE, idx_file(np.arange(5, 11)), r"label 10, expected"),
}


@pytest.mark.parametrize(("file", "content", "message"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_extracted_file_is_named(file, content, message, mnist_tables, tmp_path):
    write_files(tmp_path / "MNIST" / "raw", MNIST_FILES | {file: content})
    with pytest.raises(ValueError, match=f"{file} is corrupt.*{message}") as caught:
        load_dataset("mnist", root=tmp_path)
    assert f'load_dataset("mnist", root="{tmp_path}", download=True)' in str(caught.value)


ARCHIVE = f"{IMAGES_FILE}.gz"
BROKEN_ARCHIVES = {
    "half-downloaded": MNIST_ARCHIVES[ARCHIVE][: len(MNIST_ARCHIVES[ARCHIVE]) // 2],
    "of another data set": gzip.compress(idx_file(255 - made_images(N_TRAIN, 28, 28))),
    "an error page": b"<html>404</html>",
    "empty": b"",
}


@pytest.mark.parametrize("content", BROKEN_ARCHIVES.values(), ids=BROKEN_ARCHIVES)
def test_a_broken_archive_is_named_even_beside_a_sound_extracted_file(
    content, mnist_tables, tmp_path
):
    write_files(tmp_path / "MNIST" / "raw", MNIST_FILES | {ARCHIVE: content})
    with pytest.raises(ValueError, match=f"{ARCHIVE} is corrupt or half-written: its md5"):
        load_dataset("mnist", root=tmp_path)


@pytest.mark.parametrize("file", MNIST_ARCHIVES)
def test_a_missing_file_is_named_with_the_call_that_gets_it(file, mnist_tables, tmp_path):
    files = {name: content for name, content in MNIST_ARCHIVES.items() if name != file}
    write_files(tmp_path / "KMNIST" / "raw", files)
    with pytest.raises(FileNotFoundError, match=f"{file} is missing") as caught:
        load_dataset("kmnist", root=tmp_path)
    assert f'load_dataset("kmnist", root="{tmp_path}", download=True)' in str(caught.value)


# --- The archives that Debian installs -------------------------------------------------------


@pytest.fixture
def system_folder(mnist_tables, monkeypatch, tmp_path):
    folder = tmp_path / "system"
    source = dataclasses.replace(loading._SOURCES["fashion_mnist"], system_folder=folder)
    monkeypatch.setitem(loading._SOURCES, "fashion_mnist", source)
    # Repacked: the same content, other bytes, so torchvision's checksums cannot match.
    repacked = {f"{name}.gz": gzip.compress(c, 1, mtime=9) for name, c in MNIST_FILES.items()}
    write_files(folder, repacked)
    return folder


def test_the_system_folder_is_found_read_and_not_written(system_folder, tmp_path):
    before = sorted(path.name for path in system_folder.iterdir())
    root = tmp_path / "root"
    assert find_dataset("fashion_mnist", root) == system_folder
    assert_is_made_mnist(load_dataset("fashion_mnist", root))
    assert sorted(path.name for path in system_folder.iterdir()) == before
    assert not root.exists()


def test_the_own_folder_goes_before_the_system_folder(system_folder, tmp_path):
    own = tmp_path / "root" / "FashionMNIST" / "raw"
    own.mkdir(parents=True)
    assert find_dataset("fashion_mnist", tmp_path / "root") == own


def test_system_archives_are_checked_without_a_checksum_table(system_folder):
    archive = system_folder / ARCHIVE
    sound = archive.read_bytes()
    flipped = bytearray(sound)
    flipped[-8] ^= 1  # in the CRC-32 that ends an archive
    cases = {
        sound[:-20]: "Compressed file ended",
        bytes(flipped): "CRC check failed",
        sound[:10] + b"\xff" * 20: "invalid block type",  # after the gzip header
        b"no gzip": "Not a gzipped file",
    }
    for content, message in cases.items():
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=f"{ARCHIVE} is corrupt.*{message}"):
            load_dataset("fashion_mnist")


def test_a_gzip_bomb_is_not_inflated(system_folder):
    bomb = gzip.compress(GOOD + bytes(30_000_000))
    (system_folder / ARCHIVE).write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"{ARCHIVE} is corrupt.*more than"):
        load_dataset("fashion_mnist")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The images take 11 kB, the packed bomb 40 kB; what it would inflate to is 30 MB.
    assert peak < 1_000_000


def test_debian_files_are_the_official_data_set():
    source = loading._SOURCES["fashion_mnist"]
    if find_dataset("fashion_mnist") != source.system_folder:
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    dataset = load_dataset("fashion_mnist")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [
        55_000,
        5_000,
        10_000,
    ]
    # The official parts have 6,000 and 1,000 images of every class.
    official = torch.cat([dataset.train.target, dataset.validation.target]).bincount()
    assert official.tolist() == [6_000] * 10
    small = load_dataset("fashion_mnist_small")
    assert dataset.classes == small.classes
    test_images = torch.tensor(split_order()[-5_000:])
    assert torch.equal(dataset.test.inputs[test_images], small.test.inputs)


# --- Downloads, from a mirror on this machine ------------------------------------------------


@pytest.fixture
def mirror(tmp_path):
    """A folder, and the address under which a web server on the loopback interface serves it."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def mnist_mirror(mirror, mnist_tables, monkeypatch, torchvision):
    folder, address = mirror
    write_files(folder, MNIST_ARCHIVES)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
    return folder


def test_nothing_is_fetched_unless_asked(mnist_mirror, tmp_path):
    root = tmp_path / "root"
    with pytest.raises(FileNotFoundError, match="mnist is not here"):
        load_dataset("mnist", root)
    assert not root.exists()


def test_download_fetches_and_then_needs_no_mirror(mnist_mirror, tmp_path):
    root = tmp_path / "root"
    assert_is_made_mnist(load_dataset("mnist", root, download=True))
    for archive in mnist_mirror.iterdir():
        archive.unlink()
    assert_is_made_mnist(load_dataset("mnist", root))
    assert_is_made_mnist(load_dataset("mnist", root, download=True))


@pytest.mark.parametrize("others", [{}, MNIST_FILES, MNIST_FILES | MNIST_ARCHIVES])
def test_download_replaces_what_an_interrupted_download_left(others, mnist_mirror, tmp_path):
    root = tmp_path / "root"
    broken = {ARCHIVE: BROKEN_ARCHIVES["half-downloaded"]}
    write_files(root / "MNIST" / "raw", others | broken)
    with pytest.raises(ValueError, match=ARCHIVE):
        load_dataset("mnist", root)
    assert_is_made_mnist(load_dataset("mnist", root, download=True))


def test_a_mirror_that_serves_something_else_is_refused(mnist_mirror, tmp_path):
    (mnist_mirror / ARCHIVE).write_bytes(BROKEN_ARCHIVES["of another data set"])
    with pytest.raises(OSError, match=r"downloading mnist to .* failed.*copy the folder MNIST/raw"):
        load_dataset("mnist", tmp_path / "root", download=True)
    with pytest.raises((FileNotFoundError, ValueError)):
        load_dataset("mnist", tmp_path / "root")


def test_an_unreachable_mirror_is_an_error_with_the_reason(mnist_tables, tmp_path):
    with pytest.raises(OSError, match=r"downloading kmnist to .* failed"):
        load_dataset("kmnist", tmp_path / "root", download=True)


# --- CIFAR -----------------------------------------------------------------------------------


def cifar_batch(n, seed_of, label_key, n_classes):
    """One CIFAR batch: a pickled dictionary, rows of 1024 red, 1024 green, 1024 blue pixels."""
    images = made_images(seed_of, 3, 32, 32)[:n].reshape(n, -1)
    labels = made_labels(seed_of, n_classes)[:n].tolist()
    return pickle.dumps({"data": images, label_key: labels}, protocol=2)


def cifar_files(name):
    """The files of a small CIFAR-10 or CIFAR-100 by name; the last is the meta file."""
    if name == "cifar100":
        meta = {"fine_label_names": [f"class {k}" for k in range(100)]}
        return {
            "train": cifar_batch(N_TRAIN, N_TRAIN, "fine_labels", 100),
            "test": cifar_batch(N_TEST, N_TEST, "fine_labels", 100),
            "meta": pickle.dumps(meta, protocol=2),
        }
    images, labels = made_images(N_TRAIN, 3, 32, 32).reshape(N_TRAIN, -1), made_labels(N_TRAIN)
    bounds = [0, 3, 6, 9, 12, N_TRAIN]  # five batches
    batches = {
        f"data_batch_{k + 1}": pickle.dumps(
            {"data": images[start:stop], "labels": labels[start:stop].tolist()}, protocol=2
        )
        for k, (start, stop) in enumerate(itertools.pairwise(bounds))
    }
    test = {"test_batch": cifar_batch(N_TEST, N_TEST, "labels", 10)}
    meta = {"label_names": [f"class {k}" for k in range(10)]}
    return batches | test | {"batches.meta": pickle.dumps(meta, protocol=2)}


@pytest.fixture(params=CIFAR)
def cifar(request, small_counts, monkeypatch, torchvision, tmp_path):
    """Name, folder and files of a small CIFAR on disk; its checksums are in torchvision's table."""
    name, cls = request.param, getattr(torchvision.datasets, CIFAR[request.param])
    files = cifar_files(name)
    monkeypatch.setattr(cls, "train_list", [(f, md5(files[f])) for f, _ in cls.train_list])
    monkeypatch.setattr(cls, "test_list", [(f, md5(files[f])) for f, _ in cls.test_list])
    meta = cls.meta | {"md5": md5(files[cls.meta["filename"]])}
    monkeypatch.setattr(cls, "meta", meta)
    monkeypatch.setattr(cls, "url", "file:///nowhere.tar.gz")
    folder = tmp_path / cls.base_folder
    write_files(folder, files)
    return name, folder, files


def assert_is_made_cifar(dataset):
    n_classes = len(dataset.classes)
    assert dataset.classes == tuple(f"class {k}" for k in range(n_classes))
    train = made_images(N_TRAIN, 3, 32, 32), made_labels(N_TRAIN, n_classes)
    test = made_images(N_TEST, 3, 32, 32), made_labels(N_TEST, n_classes)
    assert_is_made_data(dataset, (3, 32, 32), *train, *test)


def test_cifar_loads(cifar, tmp_path):
    name, *_ = cifar
    assert_is_made_cifar(load_dataset(name, root=tmp_path))


def test_every_missing_or_half_written_cifar_file_is_named(cifar, tmp_path):
    name, folder, files = cifar
    for file, content in files.items():
        (folder / file).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=f"{file} is corrupt or half-written: its md5"):
            load_dataset(name, root=tmp_path)
        (folder / file).unlink()
        with pytest.raises(FileNotFoundError, match=f"{file} is missing.*download=True"):
            load_dataset(name, root=tmp_path)
        (folder / file).write_bytes(content)
    load_dataset(name, root=tmp_path)


class Trap:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def test_a_planted_pickle_is_not_executed(cifar, tmp_path):
    name, folder, files = cifar
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    pickle.loads(trap)
    assert sprung.exists()  # the trap works
    sprung.rmdir()
    for file, content in files.items():
        (folder / file).write_bytes(trap)
        with pytest.raises(ValueError, match=f"{file} is corrupt"):
            load_dataset(name, root=tmp_path)
        # Neither while torchvision is looking for something to download.
        with pytest.raises(OSError, match="downloading"):
            load_dataset(name, root=tmp_path, download=True)
        assert not sprung.exists()
        (folder / file).write_bytes(content)


def test_cifar_downloads_and_repairs(cifar, mirror, monkeypatch, torchvision, tmp_path):
    name, folder, files = cifar
    cls = getattr(torchvision.datasets, CIFAR[name])
    served, address = mirror
    with tarfile.open(served / cls.filename, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    packed = (served / cls.filename).read_bytes()
    monkeypatch.setattr(cls, "url", address + cls.filename)
    monkeypatch.setattr(cls, "tgz_md5", md5(packed))
    root = tmp_path / "root"
    write_files(root, {cls.filename: packed[:100]})  # an interrupted download
    assert_is_made_cifar(load_dataset(name, root, download=True))
    for file in files:
        (root / folder.name / file).write_bytes(b"")
        assert_is_made_cifar(load_dataset(name, root, download=True))


# --- Where data sets are looked for ----------------------------------------------------------


def test_the_environment_says_where(mnist_tables, monkeypatch, tmp_path):
    write_files(tmp_path / "MNIST" / "raw", MNIST_FILES)
    monkeypatch.setenv("CALIBCOURSE_DATA", str(tmp_path))
    assert_is_made_mnist(load_dataset("mnist"))
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        load_dataset("mnist", root=tmp_path / "elsewhere")


def test_without_a_word_data_lie_at_the_top_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.delenv("CALIBCOURSE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    top = Path(data.__file__).parents[2]
    expected = top if (top / "pyproject.toml").exists() else Path()
    assert loading.data_folder() == expected / ".data"
    monkeypatch.setattr(loading, "__file__", str(tmp_path / "a" / "b" / "c" / "loading.py"))
    assert loading.data_folder() == Path(".data")
    monkeypatch.setenv("CALIBCOURSE_DATA", "~/images")
    assert loading.data_folder() == Path.home() / "images"


def test_find_dataset_tells_absence_from_presence(mnist_tables, tmp_path):
    assert find_dataset("mnist", tmp_path) is None
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    assert find_dataset("mnist", tmp_path) == tmp_path / "MNIST" / "raw"
    assert find_dataset("fashion_mnist_small").is_dir()


@pytest.mark.parametrize("function", [load_dataset, find_dataset])
def test_unknown_names_are_refused_with_the_list(function):
    with pytest.raises(ValueError, match=r"name must be one of cifar10, .*; got 'imagenet'"):
        function("imagenet")


def test_our_tables_agree_with_torchvision(torchvision, tmp_path):
    for name, source in loading._SOURCES.items():
        cls = getattr(torchvision.datasets, source.torchvision_name)
        if name in CIFAR:
            assert source.folder == cls.base_folder
        else:
            bare = cls.__new__(cls)
            bare.root = tmp_path
            assert Path(bare.raw_folder) == tmp_path / source.folder
            assert [label.split(" - ")[0] for label in cls.classes] == list(source.classes)
