"""A graded class's copy of the course: lessons and package, no solution, and it works."""

import subprocess
import sys
from pathlib import Path

import pytest

from calibcourse import cli
from calibcourse.course.release import MARK, release

SHOW = """
import calibcourse
from calibcourse.exercises import lesson_00 as ex
print(calibcourse.__file__)
ex.over_confidence.solution()
ex.over_confidence.hint()
"""

ROOT = Path(__file__).parents[1]
LESSONS = len(list((ROOT / "lessons").glob("[0-9]*.ipynb")))


@pytest.fixture(scope="module")
def released(copy_course, tmp_path_factory):
    """The real course, released."""
    folder = tmp_path_factory.mktemp("release")
    root = copy_course(folder / "course")
    (root / "lessons/my_01.ipynb").write_text("mine")
    (root / "work").mkdir()
    release(root, folder / "class")
    return folder / "class"


def test_no_solution_is_in_it(released):
    names = {path.name for path in released.iterdir()}
    assert {"lessons", "calibcourse", "pyproject.toml"} <= names
    assert not names & {"solutions", "work", "tests"}
    assert not (released / "lessons/my_01.ipynb").exists()
    assert len(list((released / "lessons").glob("0*.ipynb"))) == LESSONS


def test_solutions_are_shut_and_hints_are_not(released):
    done = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=released, capture_output=True, text=True
    )
    assert done.stdout.startswith(str(released)), done.stderr
    assert "In a graded class" in done.stdout and "return confidence" not in done.stdout
    assert "hint 1 of 3" in done.stdout


def test_it_is_a_course_for_start_and_none_for_build(released, monkeypatch, capsys):
    monkeypatch.chdir(released / "lessons")
    assert cli.main(["start", "--no-lab"]) == 0
    assert len(list((released / "work").glob("0*.ipynb"))) == LESSONS
    assert cli.main(["build", "--check"]) == 2
    assert "a copy without solutions" in capsys.readouterr().err


def test_it_is_written_only_where_nothing_is(course, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(course)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for wrong in (tmp_path / "full", tmp_path / "full/file", course / "lessons/copy"):
        assert cli.main(["release", "--without-solutions", str(wrong)]) == 2
        assert "must be a new" in (err := capsys.readouterr().err) or "lies within" in err
    assert cli.main(["release", "--without-solutions", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / MARK).exists()
