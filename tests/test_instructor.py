"""What an instructor does with the course: fork it, test it, update it under a learner's hands."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from repository import cloned, git, published

from calibcourse.cli import main
from calibcourse.course.bootstrap import (
    ADDRESS_FILE,
    Address,
    bootstrap_cell,
    parse_address,
    read_address,
)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def call(folder: Path, *command: str) -> subprocess.CompletedProcess:
    """Run a command in a folder as a person would: with no setting of this test run."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CALIBCOURSE_")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


# ------------------------------------------------------------------------------- a fork

FIRST = parse_address("https://github.com/first-owner/calibration-course", "main")
FORK = parse_address("https://github.com/second-owner/autumn-class", "week-1")


def cells(path: Path) -> list[dict]:
    """The cells of a notebook, as they are stored."""
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def all_outputs(course: Path) -> dict[str, list]:
    """What is stored of each cell's run, by notebook."""
    return {
        str(path.relative_to(course)): [cell.get("outputs") for cell in cells(path)]
        for path in course.glob("*/[0-9]*.ipynb")
    }


@pytest.mark.parametrize("lessons", ["01", pytest.param("0*", marks=pytest.mark.slow)])
def test_a_fork_takes_the_whole_course_with_it(
    lessons: str,
    copy_course: Callable[[Path], Path],
    snapshot: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    course = copy_course(tmp_path / "course")
    kept = {*course.glob(f"lessons/{lessons}_*"), *course.glob(f"solutions/{lessons}_*")}
    for path in {*course.glob("lessons/*_*"), *course.glob("solutions/*_*")} - kept:
        path.unlink()
    monkeypatch.chdir(course)
    if read_address(course):  # these tests run in a fork too
        main(["publish", "--undo"])
    before, outputs = snapshot(course), all_outputs(course)
    assert len(outputs) == 2 * len([*course.glob("solutions/*.py")]) > 0

    assert main(["publish", "--repo", FIRST.repo, "--ref", FIRST.ref]) == 0
    assert len(naming(FIRST, snapshot(course))) == len(outputs) + 2
    assert main(["publish", "--repo", FORK.repo, "--ref", FORK.ref]) == 0
    assert naming(FIRST, snapshot(course)) == []
    assert naming(FORK, snapshot(course)) == sorted([str(ADDRESS_FILE), "README.md", *outputs])
    for name in outputs:
        title, bootstrap = ("".join(cell["source"]) for cell in cells(course / name)[:2])
        assert "\n\n" + FORK.badges(name) in title
        assert bootstrap == bootstrap_cell(FORK)
    first = min(course.glob("lessons/*.ipynb")).name
    assert FORK.badges(f"lessons/{first}") in (course / "README.md").read_text()
    assert json.loads((course / ADDRESS_FILE).read_text()) == {"repo": FORK.repo, "ref": FORK.ref}
    assert all_outputs(course) == outputs
    capsys.readouterr()
    assert main(["build", "--check"]) == 0, capsys.readouterr().out

    assert main(["publish", "--undo"]) == 0
    assert snapshot(course) == before


def naming(address: Address, files: dict[str, bytes]) -> list[str]:
    """The files in which the owner's name stands."""
    return sorted(name for name, text in files.items() if address.owner.encode() in text)


# ------------------------------------------------------------------------------- CI

ONE = "lessons/01_confidence_and_ece.ipynb"
OTHER = ["lessons/02_margins.ipynb"]
SOLUTIONS = ["solutions/01_confidence_and_ece.ipynb"]
UNIT = ["tests/test_unit.py"]
# What each line of the README tests, in a course of three notebooks and one unit test.
DOCUMENTED = {
    "": [ONE, *OTHER, *UNIT],
    "lessons": [ONE, *OTHER],
    ONE: [ONE],
    "-n 2 --dist loadfile": [ONE, *OTHER, *UNIT],
    "solutions": SOLUTIONS,
}


def documented_lines() -> list[str]:
    """The options of every pytest command in the README, but those for browser and Colab."""
    found = re.findall(r"(?:^|`|bin/|-m )pytest\b([^`#\n]*)", README, re.MULTILINE)
    return sorted({options.strip() for options in found if "-m " not in options})


def test_every_documented_line_is_tried():
    assert documented_lines() == sorted(DOCUMENTED)


@pytest.fixture(scope="module")
def class_course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real configuration around lessons of one line."""
    root = tmp_path_factory.mktemp("class") / "course"
    for folder in ("lessons", "solutions", "tests", "work"):
        (root / folder).mkdir(parents=True)
    for name in (ONE, *OTHER, *SOLUTIONS, "lessons/my_01.ipynb", "work/01.ipynb"):
        write_lesson(root / name, "2")
    (root / UNIT[0]).write_text("def test_unit():\n    pass\n")
    (root / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    shutil.copy(ROOT / "tests/nbval_sanitize.cfg", root / "tests")
    return root


def write_lesson(path: Path, printed: str) -> None:
    """A notebook of one cell and what is stored of its run."""
    output = new_output("stream", name="stdout", text=printed + "\n")
    cell = new_code_cell("print(1 + 1)", execution_count=1, outputs=[output])
    nbformat.write(new_notebook(cells=[cell]), path)


def outcomes(course: Path, *options: str) -> dict[str, str]:
    """Outcome by file."""
    done = call(course, sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *options)
    found = re.findall(r"^(PASSED|FAILED|ERROR) (\S+?)::", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return {name: outcome for outcome, name in found}


@pytest.mark.slow  # each starts pytest in pytest once more
@pytest.mark.parametrize("options", documented_lines())
def test_a_documented_line_tests_just_what_it_says(class_course: Path, options: str):
    assert outcomes(class_course, *options.split()) == dict.fromkeys(DOCUMENTED[options], "PASSED")


@pytest.mark.slow
def test_the_learners_copies_are_passed_over_from_the_top_too(class_course: Path):
    assert outcomes(class_course, ".") == dict.fromkeys(DOCUMENTED[""], "PASSED")


@pytest.mark.slow
def test_a_learners_copy_is_tested_where_it_is_named(class_course: Path):
    right, changed, own = "lessons/my_01.ipynb", "lessons/my_changed.ipynb", "work/01.ipynb"
    write_lesson(class_course / changed, printed="3")
    found = outcomes(class_course, right, changed, own)
    assert found == {right: "PASSED", changed: "FAILED", own: "PASSED"}


# ------------------------------------------------------------------------------- an update

LESSON, EXERCISES = "lessons/01_confidence_and_ece.ipynb", "calibcourse/exercises/lesson_01.py"
STARTED = """\
from calibcourse.exercises import store

for name in ("bins", "useless", "temperature"):
    assert store.record_attempt(f"01/{name}", "correct") is None
"""
WENT_ON = """\
from calibcourse.course.progress import main
from calibcourse.exercises import store

assert store.record_attempt("01/ece", "incorrect") is None
main(csv=True)
"""


@pytest.fixture(scope="module")
def origin(copy_course: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course's repository."""
    return published(copy_course(tmp_path_factory.mktemp("git") / "course"))


@pytest.fixture
def learner(origin: Path, tmp_path: Path) -> Path:
    """A learner's clone of the course as it was before any update."""
    first = git(origin, "rev-list", "--max-parents=0", "HEAD").strip()
    git(origin, "reset", "--quiet", "--hard", first)
    return cloned(origin, tmp_path)


def update(origin: Path) -> None:
    """A new version: other words in a lesson, an exercise renamed, one removed and one added."""
    notebook = nbformat.read(origin / LESSON, as_version=4)
    notebook.cells.append(new_markdown_cell("Words of the new version."))
    nbformat.write(notebook, origin / LESSON)
    text = (origin / EXERCISES).read_text(encoding="utf-8")
    assert text.count('name="temperature"') == 1
    text = text.replace('name="temperature"', 'name="scaling"')
    text += "\nfrom dataclasses import replace\n\nextra = replace(ece, name='extra')\ndel useless\n"
    (origin / EXERCISES).write_text(text, encoding="utf-8")
    git(origin, "commit", "--quiet", "-a", "-m", "A new version")


@pytest.mark.slow
def test_progress_survives_an_update(origin: Path, learner: Path):
    started = call(learner, sys.executable, "-c", STARTED)
    assert started.returncode == 0, started.stderr
    update(origin)
    assert git(learner, "status", "--short") == ""
    git(learner, "pull", "--quiet")
    went_on = call(learner, sys.executable, "-c", WENT_ON)
    assert went_on.returncode == 0, went_on.stderr
    table = csv.DictReader(went_on.stdout.splitlines())
    shown = {row["exercise"]: row["outcome"] for row in table if row["lesson"] == "01"}
    assert shown == {
        "bins": "correct",
        "ece": "incorrect",
        "scaling": "not attempted",
        "extra": "not attempted",
    }
    kept = json.loads((learner / ".calibcourse/progress.json").read_text(encoding="utf-8"))
    for gone in ("01/useless", "01/temperature"):  # they come back with an older version
        assert kept["exercises"][gone]["outcome"] == "correct"
