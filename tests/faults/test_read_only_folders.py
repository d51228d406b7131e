"""Folders that cannot be written: said before any work is done, and nothing is changed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fault_cases import (
    EXERCISE,
    TINY,
    half_finished,
    mounted,
    quiet_fit,
)

from calibcourse.cli import main
from calibcourse.course.publish import publish
from calibcourse.data import load_dataset
from calibcourse.exercises import store
from calibcourse.reproduce import run_all, runner

pytestmark = pytest.mark.usefixtures("impatience")


NOBODY = 65534


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
