"""Folders, pipes, devices, sockets and loops of links in the place of a file."""

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from fault_cases import (
    litter,
    quiet_fit,
)
from test_fuzz import (
    HISTORY,
)

from calibcourse._files import read_json, write_atomically
from calibcourse.cli import main
from calibcourse.data._verified import read_idx
from calibcourse.exercises import store
from calibcourse.history import History
from calibcourse.reproduce import Run, Sweep

pytestmark = pytest.mark.usefixtures("impatience")


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
