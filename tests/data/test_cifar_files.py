"""Files of CIFAR: verified before a pickle is opened."""

import itertools
import pickle
import tarfile
from pathlib import Path

import pytest
from data_cases import (
    CIFAR,
    N_TEST,
    N_TRAIN,
    assert_is_made_data,
    made_images,
    made_labels,
    md5,
    write_files,
)

from calibcourse.data import (
    load_dataset,
)


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
