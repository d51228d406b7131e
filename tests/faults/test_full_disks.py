"""Full disks: the old file stays, the error names the file, and work goes on afterwards."""

import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fault_cases import (
    EXERCISE,
    FULL,
    TINY,
    WRITERS,
    half_finished,
    litter,
    mounted,
    quiet_fit,
)

from calibcourse._files import write_json
from calibcourse.course.build import write_all
from calibcourse.course.publish import publish
from calibcourse.data import load_dataset
from calibcourse.exercises import store
from calibcourse.reproduce import run_all
from calibcourse.reproduce.runner import SweepError

pytestmark = pytest.mark.usefixtures("impatience")


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
    records = {key: vars(record) for key, record in old.items()}
    write_json(path, {"version": store.VERSION, "exercises": records, "predictions": {}})
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
