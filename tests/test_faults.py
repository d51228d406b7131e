"""Faults: nothing is lost, nothing is half-written, and the error says what happened where.

Writers are killed, disks are full, folders cannot be written, files are no files, clocks jump.
"""

import gzip
import hashlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_fuzz import (
    CONFIG,
    HISTORY,
    JSON_TARGETS,
    PROVENANCE,
    TARGETS,
    nodes,
    outcome,
    resumed,
    toy_run,
    with_pickle,
)
from torch import nn

from calibcourse import _files, checkpoint, training
from calibcourse._files import read_json, write_atomically, write_json
from calibcourse.cli import main
from calibcourse.course.bootstrap import read_address
from calibcourse.course.build import write_all
from calibcourse.course.publish import publish
from calibcourse.data import load_dataset, loading
from calibcourse.data._torchvision import import_torchvision
from calibcourse.data._verified import read_idx, read_verified
from calibcourse.exercises import all_exercises, store
from calibcourse.history import History
from calibcourse.reproduce import Run, Sweep, TrajectoryConfig, run_all, runner
from calibcourse.reproduce.runner import SweepError
from calibcourse.training import fit

NOBODY = 65534
FULL = "No space left on device|File too large"  # a full disk; a limit on the size of a file
TINY = TrajectoryConfig(
    dataset="fashion_mnist_small",
    optimizer="sgd",
    lr=0.1,
    steps=8,
    batch_size=16,
    train_samples=40,
    held_out_samples=30,
    hidden=(6,),
    even_probes=3,
)
EXERCISE = next(exercise for exercise in all_exercises() if exercise.key == "01/ece")


pytestmark = pytest.mark.usefixtures("impatience")


@pytest.fixture(scope="module", autouse=True)
def _everything_imported(tmp_path_factory) -> None:
    """What imports on its first use does so now, not on a full disk or without rights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALIBCOURSE_PROGRESS", os.devnull)
        EXERCISE.check(EXERCISE.reference)
    quiet_fit(tmp_path_factory.mktemp("warm") / "run.pt")
    import_torchvision()


def litter(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*.tmp"))


# ------------------------------------------------------------------------------ small training

DATA = SimpleNamespace(name="toy", train=SimpleNamespace(inputs=torch.eye(40)))
DATA.train.target = torch.arange(40) % 3
DATA.to = lambda device: DATA
BIG = 60  # units of the hidden layer: a checkpoint of more than 20 kB


def norm(model: nn.Module, data: object) -> dict[str, float]:
    return {"norm": float(sum(p.detach().square().sum() for p in model.parameters()))}


def quiet_fit(checkpoint: Path | None, steps: int = 6, probe: Callable = norm) -> History:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, BIG), nn.Tanh(), nn.Linear(BIG, 3))
    return fit(
        model,
        DATA,
        lr=0.1,
        steps=steps,
        batch_size=16,
        probes=[probe],
        probe_steps=list(range(steps + 1)),
        checkpoint=checkpoint,
        progress=False,
    )


class Interrupted(Exception):
    pass


def half_finished(path: Path) -> bytes:
    """The checkpoint of a run of `quiet_fit` that was stopped at its fourth row."""
    rows = iter(range(3))

    def half_way(model: nn.Module, data: object) -> dict[str, float]:
        if next(rows, None) is None:
            raise Interrupted
        return norm(model, data)

    with pytest.raises(Interrupted):
        quiet_fit(path, probe=half_way)
    return path.read_bytes()


# ------------------------------------------------------------------------------ what writes

N_ROWS = 3000


def some_history(number: int) -> History:
    """100 kB that are all of one writing."""
    return History([{"step": i, "x": number} for i in range(N_ROWS)])


def number_of(history: History) -> int:
    (number,) = set(history.column("x"))
    assert len(history) == N_ROWS
    return int(number)


def write_progress(path: Path, number: int) -> None:
    os.environ["CALIBCOURSE_PROGRESS"] = str(path)
    assert store.record_attempt("01/ece", "incorrect") is None


WRITERS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], int]]] = {
    "progress": (write_progress, lambda path: store.load(path)["01/ece"].attempts),
    "history": (
        lambda path, number: some_history(number).save(path),
        lambda path: number_of(History.load(path)),
    ),
    "run": (
        lambda path, number: Run(CONFIG, some_history(number), PROVENANCE).save(path),
        lambda path: number_of(Run.load(path).history),
    ),
    "sweep": (
        lambda path, number: Sweep((Run(CONFIG, some_history(number), {}),)).save(path),
        lambda path: number_of(Sweep.load(path).runs[0].history),
    ),
}


# ------------------------------------------------------------------------------ kills


def _write_for_ever(write: Callable, path: Path, number: int) -> None:
    while True:
        number += 1
        write(path, number)


forks = pytest.mark.filterwarnings("ignore:This process")  # forked on purpose: starts at once
few_or_many = pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])


@forks
@few_or_many
@pytest.mark.parametrize("name", WRITERS)
def test_a_killed_writer_leaves_the_old_file_or_the_new_one(
    name, kills, tmp_path, kill, monkeypatch
):
    write, read = WRITERS[name]
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(tmp_path / name))
    path, chance = tmp_path / name, random.Random(name)
    write(path, 1)
    number = read(path)
    for _ in range(kills):
        # So many times the file, then its neighbours, to fall on every moment of a write.
        moment = [(chance.randint(1, 5), path), (chance.randrange(4), tmp_path)]
        assert kill(_write_for_ever, write, path, number, after=moment) == -signal.SIGKILL
        assert read(path) > number  # whole, and nothing that was there is lost
        number = read(path)
    _let_a_minute_pass(tmp_path)
    write(path, number + 1)
    assert read(path) == number + 1
    assert not litter(tmp_path)


def _let_a_minute_pass(folder: Path) -> None:
    for name in litter(folder):
        then = time.time() - _files.ABANDONED_SECONDS - 1
        os.utime(folder / name, (then, then))


def _fit_in_child(path: Path) -> None:
    torch.set_num_threads(1)
    quiet_fit(path, steps=300)


@forks
@few_or_many
def test_a_run_killed_again_and_again_ends_as_if_undisturbed(kills, tmp_path, kill):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path, chance, steps = tmp_path / "run.pt", random.Random(0), []
    for _ in range(kills):
        moment = [(chance.randint(2, 9), path), (chance.randrange(4), tmp_path)]
        assert kill(_fit_in_child, path, after=moment) == -signal.SIGKILL
        steps.append(torch.load(path, weights_only=True)["step"])
        with path.open("rb") as stream:
            checkpoint._check_archive(stream)
    assert steps == sorted(set(steps))  # each got further
    assert quiet_fit(path, steps=300) == quiet_fit(None, steps=300)
    torch.set_num_threads(threads)


def _die_at(call: str, path: Path, content: bytes) -> None:
    setattr(os, call, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    write_atomically(path, content)


@forks
def test_what_killed_writers_left_goes_with_a_later_write(tmp_path, kill):
    path = tmp_path / "a[1]*.json"  # a name that a careless pattern would not find
    write_atomically(path, b"old")
    other = tmp_path / ".b.json.12345678.tmp"
    other.write_bytes(b"another file's")
    for call in ("fsync", "replace", "fsync"):  # before and after the content is whole
        assert kill(_die_at, call, path, b"new") == -signal.SIGKILL
    assert path.read_bytes() == b"old" and len(litter(tmp_path)) == 4
    write_atomically(path, b"new")
    assert len(litter(tmp_path)) == 4  # so young that their writers may live
    _let_a_minute_pass(tmp_path)
    write_atomically(path, b"newer")
    assert litter(tmp_path) == [other.name] and path.read_bytes() == b"newer"


def test_an_interrupt_while_writing_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    def interrupt(*_: object) -> None:  # the stop button of a notebook
        raise KeyboardInterrupt

    path = tmp_path / "history.json"
    write_atomically(path, b"old")
    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, call, interrupt)
            write_atomically(path, b"new")
        assert path.read_bytes() == b"old" and not litter(tmp_path)


def test_the_content_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    """A disk that tells late that it is full, as over a network, tells it in time."""

    def late(*_: object) -> None:
        raise OSError(122, "Disk quota exceeded")

    path = tmp_path / "history.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", late)
    with pytest.raises(OSError, match=r"cannot write .*history\.json: Disk quota exceeded"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and not litter(tmp_path)


# ------------------------------------------------------------------------------ full disks


@contextmanager
def mounted(folder: Path, kilobytes: int) -> Iterator[None]:
    """A small disk in memory on a folder; skips where mounting is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount).returncode:
        pytest.skip("mounting a small disk needs Linux and its administrator")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["a small disk", "a limit on sizes"])
def disk(request, tmp_path) -> Iterator[tuple[Path, Callable]]:
    """A folder, and a function that leaves room there for so many kilobytes inside a block.

    The limit on the size of a file needs no rights, so that every machine runs one of the two.
    """
    folder = tmp_path / "disk"
    if request.param == "a small disk":
        with mounted(folder, 1024):
            yield folder, lambda kilobytes: _filled(folder, kilobytes)
    else:
        folder.mkdir()
        yield folder, _sizes_limited


@contextmanager
def _filled(folder: Path, kilobytes: int) -> Iterator[None]:
    filler = folder / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free - 1024 * kilobytes))
    yield
    filler.unlink()


@contextmanager
def _sizes_limited(kilobytes: int) -> Iterator[None]:
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN  # so it is an error and no death
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "progress"])
def test_a_record_on_a_full_disk_stays_as_it_was(name, disk):
    folder, nearly_full = disk
    write, read = WRITERS[name]
    path = folder / name
    write(path, 1)
    with nearly_full(8):
        with pytest.raises(OSError, match=f"cannot write {path}: ({FULL})"):
            write(path, 2)
        assert read(path) == 1 and not litter(folder)
    write(path, 3)
    assert read(path) == 3


def test_a_result_on_a_full_disk_is_shown_with_a_note(disk, monkeypatch, capsys):
    folder, nearly_full = disk
    path = folder / "progress.json"
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(path))
    old = {f"42/retired{i}": store.Record("correct", 3) for i in range(100)}
    write_json(path, {"version": 1, "exercises": {key: vars(r) for key, r in old.items()}})
    with nearly_full(8):
        EXERCISE.check(EXERCISE.reference)
        assert store.load() == old and not litter(folder)
    shown = capsys.readouterr().out
    assert "✓ correct" in shown and shown.count("Progress not saved") == 1
    EXERCISE.check(EXERCISE.reference)
    assert "not saved" not in capsys.readouterr().out
    assert store.load().keys() == {*old, "01/ece"}


def test_training_on_a_full_disk_stops_and_goes_on_from_its_checkpoint(disk):
    folder, nearly_full = disk
    path = folder / "run.pt"
    before = half_finished(path)
    with nearly_full(8):
        with pytest.raises(OSError, match=f"cannot write {path}: ({FULL})"):
            quiet_fit(path)
        assert path.read_bytes() == before and not litter(folder)
    assert quiet_fit(path) == quiet_fit(None)


def test_a_sweep_on_a_full_disk_names_the_file_and_resumes(disk):
    folder, nearly_full = disk
    with nearly_full(8):
        with pytest.raises(SweepError, match=rf"(?s)1 of 1 .*{TINY.key}: OSError.*({FULL})"):
            run_all([TINY], folder, progress=False)
        assert not litter(folder)
    assert len(run_all([TINY], folder, progress=False)) == 1


def test_publishing_on_a_full_disk_changes_nothing(disk, built_course, snapshot):
    folder, nearly_full = disk
    root = shutil.copytree(built_course, folder / "course")
    before = snapshot(root)
    with nearly_full(2):
        with pytest.raises(OSError, match=rf"cannot write {root}/.*: ({FULL})"):
            publish(root, "https://github.com/ada/course", "main")
        assert snapshot(root) == before
    assert len(publish(root, "https://github.com/ada/course", "main")) == 4


def test_files_that_belong_together_change_all_or_none_on_a_full_disk(tmp_path, snapshot):
    """Writing one after the other, the first fits and leaves no room for putting it back."""
    with mounted(tmp_path / "disk", 256):
        first, second, third = (tmp_path / "disk" / name for name in "abc")
        first.write_text("1" * 20_000)
        before = snapshot(tmp_path)
        with _filled(tmp_path / "disk", 28), pytest.raises(OSError, match=r"cannot write .*/b"):
            write_all({first: "2" * 24_000, second: "3" * 24_000, third: "4" * 24_000})
        assert snapshot(tmp_path) == before


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


def test_a_download_to_a_full_disk_says_so_and_leaves_no_half_archive(disk, made_mnist):
    folder, nearly_full = disk
    with nearly_full(8):
        with pytest.raises(OSError, match=f"downloading mnist to {folder} failed: .*({FULL})"):
            load_dataset("mnist", folder, download=True)
        assert not list(folder.rglob("*.gz"))
    assert len(load_dataset("mnist", folder, download=True).train) == 20


def test_a_disk_that_fills_up_while_unpacking_costs_no_archive(tmp_path, made_mnist):
    folder = tmp_path / "disk"
    with mounted(folder, 1024):
        with _filled(folder, 30):  # the first archive has 19 kB, what is in it too
            with pytest.raises(OSError, match=f"downloading mnist to {folder} failed: .*({FULL})"):
                load_dataset("mnist", folder, download=True)
            (archive,) = folder.rglob("*.gz")
            assert archive.read_bytes() == (tmp_path / "mirror" / archive.name).read_bytes()
            with pytest.raises(FileNotFoundError):  # no half of the data is used
                load_dataset("mnist", folder)
        assert len(load_dataset("mnist", folder, download=True).train) == 20


# ------------------------------------------------------------------------------ read-only folders


@pytest.fixture(params=["without the right", "on a read-only disk"])
def shut(request, tmp_path) -> Iterator[tuple[Path, Callable]]:
    """A folder, and a block inside which it cannot be written."""
    if request.param == "on a read-only disk":
        with mounted(tmp_path / "disk", 1024):
            yield tmp_path / "disk", lambda: _read_only(tmp_path / "disk")
    else:
        # Not below tmp_path, which is its owner's alone: nobody could not even look into it.
        folder = Path(tempfile.mkdtemp())
        yield folder, lambda: _without_rights(folder)
        shutil.rmtree(folder)


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


@contextmanager
def _without_rights(folder: Path) -> Iterator[None]:
    """Look at the folder as a user who may read it only; permissions do not bind root."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    is_root = os.geteuid() == 0
    for path in folders:
        path.chmod(0o555)
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path in folders:
            path.chmod(0o755)


UNWRITABLE = "Permission denied|Read-only file system"


@pytest.mark.parametrize("there", [True, False])
def test_a_result_is_shown_where_progress_cannot_be_saved(there, shut, monkeypatch, capsys):
    folder, closed = shut
    path = folder / "progress.json"
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(path))
    if there:
        EXERCISE.check(EXERCISE.reference)
        capsys.readouterr()
    before = store.load()
    with closed():
        EXERCISE.check(EXERCISE.reference)
        EXERCISE.hint()
        EXERCISE.solution()
        assert store.load() == before
    shown = capsys.readouterr().out
    assert "✓ correct" in shown and shown.count("Progress not saved") == 3
    assert "CALIBCOURSE_PROGRESS" in shown and str(folder) not in shown


@pytest.mark.parametrize("below", ["run.pt", "new/folder/run.pt"])
def test_a_checkpoint_that_cannot_be_written_stops_before_the_first_probe(below, shut):
    folder, closed = shut
    with closed(), pytest.raises(OSError, match=rf"cannot write {folder / below}: ({UNWRITABLE})"):
        quiet_fit(folder / below, probe=pytest.fail)
    assert not list(folder.iterdir())


def test_a_run_that_cannot_go_on_saving_stops_at_once_but_a_finished_one_is_read(shut):
    folder, closed = shut
    half, finished = folder / "half.pt", folder / "finished.pt"
    before, history = half_finished(half), quiet_fit(finished)
    for path in (half, finished):
        path.chmod(0o644)
    with closed():
        with pytest.raises(OSError, match=f"cannot write {half}: ({UNWRITABLE})"):
            quiet_fit(half, probe=pytest.fail)
        assert quiet_fit(finished, probe=pytest.fail) == history
        assert half.read_bytes() == before


@pytest.mark.parametrize("prepared", [(), ("runs", "checkpoints")])
def test_reproduce_names_the_folder_before_it_trains(prepared, shut, monkeypatch, capsys):
    folder, closed = shut
    monkeypatch.setattr(runner, "train", pytest.fail)
    for name in prepared:
        (folder / name).mkdir()
    with closed():
        assert main(["reproduce", "figure1", "--seeds", "0", "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"calibcourse reproduce: cannot write {folder / 'figure1.png'}: ")
    assert len(error.splitlines()) == 1


def test_a_finished_sweep_is_read_from_a_folder_that_cannot_be_written(shut):
    folder, closed = shut
    runs = run_all([TINY], folder, progress=False)
    with closed():
        assert run_all([TINY], folder, progress=False) == runs


def test_publishing_where_nothing_can_be_written_changes_nothing(shut, built_course, snapshot):
    folder, closed = shut
    root = shutil.copytree(built_course, folder / "course")
    before = snapshot(root)
    with closed(), pytest.raises(OSError, match=rf"cannot write {root}/.*: ({UNWRITABLE})"):
        publish(root, "https://github.com/ada/course", "main")
    assert snapshot(root) == before


def test_a_download_to_a_folder_that_cannot_be_written_names_it(shut, made_mnist):
    folder, closed = shut
    reason = f"downloading mnist to {folder} failed: .*({UNWRITABLE})"
    with closed(), pytest.raises(OSError, match=reason):
        load_dataset("mnist", folder, download=True)


# ------------------------------------------------------------------------------ files that are none


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # zeros without end
    except OSError:
        pytest.skip("making a device needs the administrator")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to(path.with_name("pipe"))


NO_FILES = {
    "folder": os.mkdir,
    "pipe": os.mkfifo,
    "device": _device,
    "socket": _socket,
    "link to a pipe": _link_to_pipe,
    "link to itself": _loop,
}


@pytest.fixture
def no_file(tmp_path, request) -> Path:
    with tempfile.TemporaryDirectory() as short:  # the address of a socket has 108 bytes
        path = Path(short) / "here"
        NO_FILES[request.param](path)
        before = sorted((p.name, p.lstat().st_mode) for p in path.parent.iterdir())
        yield path
        assert sorted((p.name, p.lstat().st_mode) for p in path.parent.iterdir()) == before


each_no_file = pytest.mark.parametrize("no_file", NO_FILES, indirect=True)


@each_no_file
def test_what_is_no_file_is_not_replaced(no_file):
    for write in (lambda: write_atomically(no_file, b"new"), lambda: HISTORY.save(no_file)):
        with pytest.raises(OSError, match=f"cannot write {no_file}: "):
            write()


@each_no_file
def test_what_is_no_file_is_no_checkpoint(no_file):
    with pytest.raises(OSError, match=str(no_file)):
        quiet_fit(no_file, probe=pytest.fail)


@each_no_file
def test_what_is_no_file_is_not_read(no_file):
    for read in (read_json, History.load, Run.load, Sweep.load, store.load):
        with pytest.raises(OSError, match=str(no_file)):
            read(no_file)
    with pytest.raises(FileNotFoundError):
        read_idx(no_file, (12,))


@each_no_file
def test_what_is_no_file_keeps_no_progress(no_file, monkeypatch):
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(no_file))
    assert "Progress not saved" in store.record_attempt("01/ece", "correct")
    assert main(["progress"]) == 1


def test_the_target_of_a_link_is_written_and_the_link_kept(tmp_path):
    target, link = tmp_path / "elsewhere" / "history.json", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"new", b"newer"):  # made through the link, then replaced
        write_atomically(link, content)
        assert link.is_symlink() and target.read_bytes() == content
    assert not litter(tmp_path)


# ------------------------------------------------------------------------------ hostile content
# Truncations, changed bytes and hostile values in every place are in test_fuzz.py.


@pytest.mark.parametrize("name", JSON_TARGETS)
def test_words_of_ten_megabytes_are_not_quoted_in_full(name, tmp_path):
    target, chance = TARGETS[name], random.Random(name)
    path = tmp_path / target.file
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(target.seeds(tmp_path / "seed")[0])
    for container, key in chance.sample(nodes(document), min(8, len(nodes(document)))):
        before, container[key] = container[key], "x" * 10_000_000
        outcome(target, path, json.dumps(document).encode(), f"a huge {key}")
        container[key] = before


def test_a_broken_address_names_its_file(tmp_path):
    path = tmp_path / "calibcourse/course/published.json"
    for content in ('{"repo": 1, "ref": 2}', '{"repo": "https://github.com/a/b", "ref": "-"}'):
        write_atomically(path, content.encode())
        with pytest.raises(ValueError, match=r"published\.json: re"):
            read_address(tmp_path)


def test_a_key_of_a_foreign_configuration_stays_in_its_folder(tmp_path):
    path = tmp_path / "run.json"
    Run(CONFIG, HISTORY, PROVENANCE).save(path)
    record = json.loads(path.read_text())
    for options in ({"directions": "/../../x"}, {}, {"directions": "\ud800"}):
        record["config"]["options"] = options
        path.write_text(json.dumps(record))
        with pytest.raises(ValueError, match=r"run\.json"):
            Run.load(path)


def test_no_more_of_a_data_file_is_read_than_any_data_set_has(tmp_path):
    path = tmp_path / "data_batch_1"
    with path.open("wb") as stream:
        stream.truncate(2**33)  # 8 GB of nothing
    tracemalloc.start()
    with pytest.raises(ValueError, match="data_batch_1 is corrupt"):
        read_verified(path, "0" * 32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20


def state_of(run: training._Run) -> list:
    buffers = [s["momentum_buffer"] for s in run.optimizer.state_dict()["state"].values()]
    return [*(value.tolist() for value in run.model.state_dict().values()), run.step, buffers]


def test_a_changed_bit_of_a_checkpoint_is_never_used(tmp_path):
    path = tmp_path / "run.pt"
    run, _ = toy_run(path)
    with torch.no_grad():
        loss = run.model(torch.eye(3)).square().sum
    run.optimizer.step(lambda: loss().requires_grad_())
    run.probe()
    whole, expected = path.read_bytes(), state_of(resumed(path))
    refused = 0
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            assert state_of(resumed(path)) == expected  # the bit was in padding
        except ValueError as error:
            assert "run.pt" in str(error)
            refused += 1
    assert refused > len(whole) / 7 / 4


@pytest.mark.parametrize(
    "damage",
    [
        {"optimizer": {}},
        {"random": [torch.zeros(3)]},
        {"step": -1},
        {"step": 0.5},
        {"step": True},
        {"history": {**History([{"step": 2}]).to_dict()}, "step": 1},
        {"history": {**History([]).to_dict(), "rows": [{"step": 0, 5: 1.0}]}},
        {"version": torch.ones(2)},
        {"configuration": {"lr": torch.ones(2)}},
        {"configuration": [1]},
    ],
    ids=lambda damage: ",".join(damage),
)
def test_a_refused_checkpoint_leaves_the_model_as_it_was(damage, tmp_path):
    path = tmp_path / "run.pt"
    half_finished(path)
    state = torch.load(path, weights_only=True)
    state["model"] = {name: value + 1 for name, value in state["model"].items()}
    torch.save({**state, **damage}, path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, BIG), nn.Tanh(), nn.Linear(BIG, 3))
    before = [value.clone() for value in model.state_dict().values()]
    options = dict(lr=0.1, steps=6, batch_size=16, probes=[norm], probe_steps=list(range(7)))
    with pytest.raises(ValueError, match=r"checkpoint .*run\.pt"):
        fit(model, DATA, **options, checkpoint=path, progress=False)
    assert all(map(torch.equal, model.state_dict().values(), before))


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_a_bomb_in_a_checkpoint_is_neither_unpacked_nor_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.pt"
    archive = half_finished(path)
    path.write_bytes(with_pickle(archive, lambda content: content))
    quiet_fit(path)  # what is put together here is a checkpoint
    path.write_bytes(with_pickle(archive, lambda content: pickle.dumps(Bomb(), protocol=2)))
    with pytest.raises(ValueError, match=r"checkpoint .*run\.pt"):
        quiet_fit(path)
    assert not Path("exploded").exists()

    packed = with_pickle(
        archive, lambda content: content + bytes(20_000_000), compress_type=zipfile.ZIP_DEFLATED
    )
    assert len(packed) < 1_000_000
    path.write_bytes(packed)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch would unpack it"))
    with pytest.raises(ValueError, match=r"checkpoint .*run\.pt"):
        quiet_fit(path)


# ------------------------------------------------------------------------------ clocks


def test_progress_is_sound_whatever_the_clock_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    now = datetime(2026, 4, 1, tzinfo=UTC)
    times = [now, now - timedelta(days=365), now.replace(year=2039), now.replace(year=1970),
             datetime.max.replace(tzinfo=UTC), now]  # fmt: skip
    for number, then in enumerate(times, start=1):
        monkeypatch.setattr(
            store, "datetime", SimpleNamespace(now=lambda zone, then=then: then,
                                               fromisoformat=datetime.fromisoformat)
        )  # fmt: skip
        assert store.record_attempt("01/ece", "incorrect" if number == 1 else "correct") is None
        record = store.load()["01/ece"]
        assert record.attempts == number
        assert record.first_attempt == "2026-04-01T00:00:00Z"
        assert record.first_correct == (None if number == 1 else "2025-04-01T00:00:00Z")
    assert main(["progress"]) == 0 and "2025-04-01T00:00:00Z" in capsys.readouterr().out


def test_seconds_of_a_run_come_from_a_clock_that_cannot_jump(tmp_path, monkeypatch):
    history, clock = some_history(1), time.time
    monkeypatch.setattr(runner, "train", lambda *_: monkeypatch.setattr(
        time, "time", lambda: clock() - 1e7) or history)  # fmt: skip
    runner.run_one(TINY, tmp_path)
    seconds = Run.load(runner.record_path(tmp_path, TINY)).provenance["seconds"]
    assert 0 <= seconds < 1e6


def test_a_neighbour_from_the_future_is_abandoned_too(tmp_path):
    path, neighbour = tmp_path / "a.json", tmp_path / ".a.json.12345678.tmp"
    neighbour.write_bytes(b"")
    os.utime(neighbour, (2**32, 2**32))  # the clock has been set back since
    write_atomically(path, b"")
    assert not neighbour.exists()


# ------------------------------------------------------------------------------ two sessions

SESSION = r"""
import fcntl, sys, time
from calibcourse.exercises import store

store._LOCK_SECONDS = 600
flock = fcntl.flock

def telling(*arguments):  # of the first try in vain
    try:
        flock(*arguments)
    except BlockingIOError:
        fcntl.flock = flock
        print("waiting", flush=True)
        raise

print("ready", flush=True)
for line in sys.stdin:
    if line == "hold\n":  # stop in the middle of an update, with the lock
        store.write_json = lambda *_: print("held", flush=True) or time.sleep(600)
        store.record_attempt("01/ece", "correct")
    if line == "wait\n":
        fcntl.flock = telling
    notes = {store.record_attempt("01/ece", "incorrect") for _ in range(40)}
    print(notes, flush=True)
"""


def test_a_session_killed_with_the_lock_does_not_stop_the_other(tmp_path):
    path = tmp_path / "progress.json"
    environment = os.environ | {"CALIBCOURSE_PROGRESS": str(path)}
    sessions = [
        subprocess.Popen(
            [sys.executable, "-c", SESSION],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]

    def tell(session: subprocess.Popen, word: str) -> None:
        session.stdin.write(f"{word}\n")
        session.stdin.flush()

    def heard(session: subprocess.Popen) -> str:
        return session.stdout.readline().strip()

    try:
        assert [heard(session) for session in sessions] == ["ready"] * 2
        for session in sessions:
            tell(session, "write")
        assert [heard(session) for session in sessions] == ["{None}"] * 2
        assert store.load(path)["01/ece"].attempts == 80

        victim, other = sessions
        tell(victim, "hold")
        assert heard(victim) == "held"
        tell(other, "wait")
        assert heard(other) == "waiting"
        assert store.load(path)["01/ece"].attempts == 80
        victim.kill()
        assert heard(other) == "{None}"
        assert store.load(path)["01/ece"].attempts == 120
    finally:
        for session in sessions:
            session.kill()
            session.communicate()
