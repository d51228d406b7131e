"""Fixtures that the tests of data share."""

import dataclasses
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from data_cases import (
    MNIST_ARCHIVES,
    MNIST_FAMILY,
    N_TEST,
    N_TRAIN,
    N_VALIDATION,
    md5,
)

from calibcourse.data import (
    load_dataset,
    loading,
)
from calibcourse.data._torchvision import import_torchvision


@pytest.fixture(scope="module")
def small():
    return load_dataset("fashion_mnist_small")


@pytest.fixture(scope="module")
def torchvision():
    return import_torchvision()


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
