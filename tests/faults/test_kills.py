"""Writers are killed: the old file is there or the new one, and nothing is lost."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fault_cases import (
    WRITERS,
    let_a_minute_pass,
    litter,
    quiet_fit,
)
from tqdm.auto import tqdm

from calibcourse import checkpoint
from calibcourse._files import write_atomically

pytestmark = pytest.mark.usefixtures("impatience")


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
    let_a_minute_pass(tmp_path)
    write(path, number + 1)
    assert read(path) == number + 1
    assert not litter(tmp_path)


def _hold_the_lock(folder: Path) -> None:
    with tqdm.get_lock():
        (folder / "held").touch()
        signal.pause()


@forks
def test_a_process_killed_at_its_progress_bar_stops_no_other(tmp_path, kill):
    kill(_hold_the_lock, tmp_path, after=[(1, tmp_path)])
    with tqdm(disable=True):  # takes the lock all the same
        pass


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
    let_a_minute_pass(tmp_path)
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
