"""Downloads, from a mirror on this machine."""

import pytest
from data_cases import (
    ARCHIVE,
    BROKEN_ARCHIVES,
    MNIST_ARCHIVES,
    MNIST_FILES,
    assert_is_made_mnist,
    write_files,
)

from calibcourse.data import (
    load_dataset,
)


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
