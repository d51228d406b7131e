"""Files of the MNIST family and of Debian: sound ones are read, broken ones named."""

import dataclasses
import gzip
import tracemalloc

import numpy as np
import pytest
import torch
from data_cases import (
    ARCHIVE,
    BROKEN_ARCHIVES,
    IMAGES_FILE,
    LABELS_FILE,
    MNIST_ARCHIVES,
    MNIST_FAMILY,
    MNIST_FILES,
    N_TRAIN,
    assert_is_made_mnist,
    idx_file,
    made_images,
    write_files,
)

from calibcourse.data import (
    find_dataset,
    load_dataset,
    loading,
)
from calibcourse.data.fashion_mnist_small import split_order


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
