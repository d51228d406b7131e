"""What a split and a data set are, and the embedded one: exactly as recorded."""

import gzip
import hashlib
from pathlib import Path

import pytest
import torch
from data_cases import (
    CIFAR,
    MNIST_FILES,
    assert_is_made_mnist,
    write_files,
)

from calibcourse import data
from calibcourse.data import (
    Dataset,
    Split,
    fashion_mnist_small,
    find_dataset,
    load_dataset,
    loading,
)
from calibcourse.data.fashion_mnist_small import split_order


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
    assert dataset.to("cpu") is dataset  # nothing to move, nothing to check again
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
