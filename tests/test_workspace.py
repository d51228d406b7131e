"""Start and update: git never meets an answer, and a new version reaches the learner's copies."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from repository import cloned, git, published

from calibcourse import cli
from calibcourse.course import workspace
from calibcourse.course.build import check, notebook_text, write_all
from calibcourse.course.source import LANGUAGE, LESSON, SOLUTION, notebook_path, render
from calibcourse.course.workspace import as_built, start, update

SOURCE, NAME = "solutions/01_tiny.py", "01_tiny.ipynb"


def write_notebooks(root: Path) -> None:
    """What a build writes, not executed."""
    for kind in (LESSON, SOLUTION):
        notebook = render(root / SOURCE, kind)
        write_all({notebook_path(root / SOURCE, kind): notebook_text(notebook)})


@pytest.fixture
def origin(course: Path) -> Path:
    """The repository of a course of one tiny lesson."""
    write_notebooks(course)
    (course / ".gitignore").write_text("work/\n.calibcourse/\n")
    return published(course)


@pytest.fixture
def learner(origin: Path, tmp_path: Path) -> Path:
    return cloned(origin, tmp_path)


def new_version(root: Path, old: str = "Five words", new: str = "Five other words") -> None:
    source = root / SOURCE
    text = source.read_text(encoding="utf-8")
    assert old in text
    source.write_text(text.replace(old, new), encoding="utf-8")
    write_notebooks(root)
    git(root, "commit", "--quiet", "-a", "-m", "A new version")


def edit(path: Path, old: str = "...  # your code here", new: str = "return 2 * x") -> None:
    """Answer in a notebook, as far as its file is concerned."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if old in cell.source)
    cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, path)


def look_at(path: Path) -> None:
    """What an editor writes into a notebook that was merely opened."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["language_info"]["version"] = "3.13.9"
    nbformat.write(notebook, path)


def test_start_copies_and_never_over_a_file(learner, snapshot):
    lines = []
    assert start(learner, lab=False, log=lines.append) == 0
    assert lines == ["work/01_tiny.ipynb is your copy"]
    assert (learner / "work" / NAME).read_bytes() == (learner / LESSON / NAME).read_bytes()
    assert git(learner, "status", "--short") == ""
    edit(learner / "work" / NAME)
    before = snapshot(learner / "work")
    assert start(learner, lab=False, log=lines.append) == 0
    assert snapshot(learner / "work") == before and len(lines) == 1
    new_version(learner)
    start(learner, lab=False, log=lines.append)
    assert snapshot(learner / "work") == before
    assert lines[1:] == ["The course has newer versions of 01: `calibcourse update`"]


def test_start_opens_the_lesson_asked_for(learner, monkeypatch, capsys):
    calls = []

    def run(command, cwd, env):
        calls.append((command, cwd, env))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(workspace.subprocess, "run", run)
    monkeypatch.chdir(learner / "solutions")
    assert cli.main(["start", "01"]) == 3
    ((command, folder, environment),) = calls
    assert command[:3] == [sys.executable, "-m", "jupyterlab"] and command[-1] == f"work/{NAME}"
    assert f"--ServerApp.root_dir={learner}" in command  # else it would be work/, without lessons/
    assert folder == learner
    # A terminal in JupyterLab finds the command.
    assert environment["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)
    assert environment["PATH"].endswith(os.environ["PATH"])
    for unknown in ("07", "1", "x"):
        assert cli.main(["start", unknown]) == 2
        assert "lessons/ has no lesson" in capsys.readouterr().err
    assert len(calls) == 1


def test_an_update_brings_the_new_version_and_keeps_answers(origin, learner):
    start(learner, lab=False)
    own = learner / "work" / NAME
    edit(own)
    before = own.read_bytes()
    new_version(origin)
    lines = []
    assert update(learner, log=lines.append) == 0
    text = own.read_text(encoding="utf-8")
    assert "Five other words" in text and "return 2 * x" in text
    assert (learner / "work/before_update" / NAME).read_bytes() == before
    assert lines == [
        "work/01_tiny.ipynb: 1 new or changed cells; before: work/before_update/" + NAME
    ]
    assert git(learner, "status", "--short") == ""
    lines.clear()
    assert update(learner, log=lines.append) == 0
    assert lines == [] and own.read_text(encoding="utf-8") == text


def test_what_both_changed_is_said_and_shown(origin, learner):
    start(learner, lab=False)
    edit(learner / "work" / NAME)
    new_version(origin, '"""x -> x + 1."""', '"""x -> x + 1, for a number x."""')
    lines = []
    assert update(learner, log=lines.append) == 0
    assert "you and the course both changed 'def answer(x):'" in lines[-1]
    text = (learner / "work" / NAME).read_text(encoding="utf-8")
    assert "return 2 * x" in text and "for a number x" in text


def test_a_lesson_merely_opened_is_in_step_and_lets_the_update_pass(origin, learner):
    look_at(learner / LESSON / NAME)
    assert git(learner, "status", "--short") != "" and check(learner) == []
    new_version(origin)
    assert update(learner, log=lambda line: None) == 0
    assert "Five other words" in (learner / LESSON / NAME).read_text(encoding="utf-8")
    assert git(learner, "status", "--short") == ""


def test_answers_in_lessons_move_to_work_before_the_update(origin, learner):
    edit(learner / LESSON / NAME)
    new_version(origin)
    lines = []
    assert update(learner, log=lines.append) == 0
    assert lines[0] == "lessons/01_tiny.ipynb held your work: it is now work/01_tiny.ipynb"
    text = (learner / "work" / NAME).read_text(encoding="utf-8")
    assert "return 2 * x" in text and "Five other words" in text
    edit(learner / LESSON / NAME, new="return 3 * x")  # again, beside the copy
    assert update(learner, log=lines.append) == 0
    assert "it is now work/01_tiny.2.ipynb" in lines[-1]
    assert "return 3 * x" in (learner / "work/01_tiny.2.ipynb").read_text(encoding="utf-8")
    assert (learner / "work" / NAME).read_text(encoding="utf-8") == text


def test_a_lesson_deleted_or_spoilt_does_not_stop_the_update(origin, learner):
    (learner / LESSON / NAME).unlink()
    new_version(origin)
    assert update(learner, log=lambda line: None) == 0
    assert "Five other words" in (learner / "work" / NAME).read_text(encoding="utf-8")
    (learner / LESSON / NAME).write_text("{")
    lines = []
    assert update(learner, log=lines.append) == 0
    assert (learner / "work/01_tiny.2.ipynb").read_text() == "{" and "held your work" in lines[0]


def test_what_cannot_be_merged_is_left_alone_and_said(learner, snapshot):
    start(learner, lab=False)
    own = learner / "work" / NAME
    for content, word in (("{", "not a readable notebook"), (None, "was not made by")):
        if content is None:
            (learner / "work" / workspace.BASE / NAME).unlink()
        else:
            own.write_text(content)
        before, lines = snapshot(learner / "work"), []
        assert update(learner, log=lines.append) == 1
        assert snapshot(learner / "work") == before
        assert [word in line for line in lines] == [True]


def test_without_a_network_what_is_here_is_used(origin, learner):
    start(learner, lab=False)
    origin.rename(origin.with_name("gone"))
    lines = []
    assert update(learner, log=lines.append) == 1
    assert lines[0].startswith("git could not fetch a new version (")


def test_changed_packages_are_announced(origin, learner):
    (origin / "requirements.txt").write_text("torch\n")
    git(origin, "add", ".")
    new_version(origin)
    lines = []
    assert update(learner, log=lines.append) == 0
    assert lines[-1].endswith("-m pip install -r requirements.txt")


def _update_and_stop(root: Path, stop_at: int) -> None:
    """Update until so many files have been written, then die."""
    replace, written = os.replace, []

    def counted(*arguments):
        if len(written) == stop_at:
            raise KeyboardInterrupt
        written.append(arguments)
        return replace(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.replace", counted)
        update(root, pull=False, log=lambda line: None)


def test_stopped_at_any_write_an_update_can_be_repeated(origin, learner):
    start(learner, lab=False)
    edit(learner / "work" / NAME)
    new_version(learner, '"""x -> x + 1."""', '"""x -> x + 1, for a number x."""')
    for writes in range(3):
        with pytest.raises(KeyboardInterrupt):
            _update_and_stop(learner, writes)
        assert "return 2 * x" in (learner / "work" / NAME).read_text(encoding="utf-8")
        (learner / "work" / workspace.BEFORE / NAME).unlink(missing_ok=True)
    assert update(learner, pull=False, log=lambda line: None) == 0
    cells = nbformat.read(learner / "work" / NAME, as_version=4).cells
    assert sum("for a number x" in cell.source for cell in cells) == 1
    assert sum("return 2 * x" in cell.source for cell in cells) == 1


def test_the_hook_keeps_what_git_keeps_as_it_was_built():
    def saved(path: str, name: str = "python") -> dict:
        info = {"name": name, "version": "3.13.9"}
        model = {"type": "notebook", "content": {"metadata": {"language_info": info}}}
        as_built(model=model, path=path, contents_manager=None)
        return model["content"]["metadata"]["language_info"]

    assert saved("lessons/01.ipynb") == saved("/solutions/01.ipynb".strip("/")) == LANGUAGE
    for other in ("work/01.ipynb", "01.ipynb", "lessons.ipynb", "my/lessons/01.ipynb"):
        assert saved(other)["version"] == "3.13.9"
    assert saved("lessons/r.ipynb", "R")["version"] == "3.13.9"
    for model in ({"type": "file", "content": "x"}, {"type": "notebook"}, {"type": "directory"}):
        as_built(model=model, path="lessons/x", contents_manager=None)
