"""What the tests of faults share: everything is imported, and MNIST is small."""

import gzip
import hashlib
import os
import struct
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from fault_cases import (
    EXERCISE,
    quiet_fit,
)

from calibcourse.data import loading
from calibcourse.data._torchvision import import_torchvision


@pytest.fixture(scope="session", autouse=True)
def _everything_imported(tmp_path_factory) -> None:
    """What imports on its first use does so now, not on a full disk or without rights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALIBCOURSE_PROGRESS", os.devnull)
        EXERCISE.check(EXERCISE.reference)
    quiet_fit(tmp_path_factory.mktemp("warm") / "run.pt")
    import_torchvision()


def idx_file(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def made_mnist(tmp_path, monkeypatch) -> Iterator[None]:
    """MNIST is small and comes from this machine."""
    mirror, checksums, chance = tmp_path / "mirror", [], np.random.default_rng(0)
    mirror.mkdir()
    for prefix, count in (("train", 24), ("t10k", 8)):
        images = chance.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in ((f"{prefix}-images-idx3", images), (f"{prefix}-labels-idx1", labels)):
            packed = gzip.compress(idx_file(array), mtime=0)
            (mirror / f"{name}-ubyte.gz").write_bytes(packed)
            digest = hashlib.md5(packed, usedforsecurity=False).hexdigest()
            checksums.append((f"{name}-ubyte.gz", digest))

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=mirror)

        def log_message(self, *args):
            pass

    mnist = import_torchvision().datasets.MNIST
    monkeypatch.setattr(mnist, "resources", checksums)
    monkeypatch.setattr(loading, "_MNIST_COUNTS", {"train": 24, "t10k": 8})
    monkeypatch.setattr(loading, "_N_VALIDATION", 4)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(mnist, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()
