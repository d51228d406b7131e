"""A lesson opened in real JupyterLab and saved by it, and then a new version of the course."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect
from repository import cloned, git, published

from calibcourse.course.build import (
    check,
    notebook_text,
    read_notebook,
    stored_measurement,
    with_outputs,
    write_all,
)
from calibcourse.course.source import LESSON, SOLUTION, notebook_path, render

from .conftest import SECOND, serving

pytestmark = pytest.mark.browser

NAME, SOURCE = "01_tiny.ipynb", "solutions/01_tiny.py"
AUTOSAVE = {"@jupyterlab/docmanager-extension/plugin": {"autosaveInterval": 1}}  # seconds


@pytest.fixture
def origin(built_course: Path) -> Path:
    (built_course / ".gitignore").write_text("work/\n.calibcourse/\n.ipynb_checkpoints/\n")
    return published(built_course)


@pytest.fixture
def learner(origin: Path, tmp_path: Path) -> Path:
    return cloned(origin, tmp_path)


def new_version(root: Path) -> None:
    """Other words in the lesson; its outputs stay."""
    source = root / SOURCE
    text = source.read_text(encoding="utf-8").replace("Five words", "Five other words")
    source.write_text(text, encoding="utf-8")
    for kind in (LESSON, SOLUTION):
        path = notebook_path(source, kind)
        stored = read_notebook(path)
        fresh = render(source, kind, measured=stored_measurement(stored))
        write_all({path: notebook_text(with_outputs(fresh, stored))})
    git(root, "commit", "--quiet", "-a", "-m", "A new version")


def open_until_saved(page: Page, address: str, path: Path) -> None:
    """Open a lesson, touch nothing, and wait until JupyterLab has saved it by itself."""
    before = path.stat().st_mtime_ns
    page.goto(address)
    idle = page.locator("#jp-main-statusbar").get_by_text("| Idle")
    expect(idle).to_be_visible(timeout=240 * SECOND)
    for _ in range(480):
        page.wait_for_timeout(0.25 * SECOND)
        if path.stat().st_mtime_ns != before:
            return
    raise AssertionError(f"{path.name} was not saved")


def pytest_in(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "lessons"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_started_as_the_readme_says_nothing_stands_in_the_way(origin, learner, page, tmp_path):
    start = ["-m", "calibcourse", "start"]
    with serving(tmp_path / "home", learner, start, AUTOSAVE) as lab:
        open_until_saved(page, lab.address(NAME, "work"), learner / "work" / NAME)
        # Opened where git keeps it, it is saved as it was built.
        open_until_saved(page, lab.address(NAME), learner / LESSON / NAME)
    assert git(learner, "status", "--short") == ""
    new_version(origin)
    git(learner, "pull", "--quiet", "--ff-only")
    command = [sys.executable, "-m", "calibcourse", "update"]
    subprocess.run(command, cwd=learner, check=True)
    for folder in (LESSON, "work"):
        assert "Five other words" in (learner / folder / NAME).read_text(encoding="utf-8")
    assert check(learner) == []
    done = pytest_in(learner)
    assert done.returncode == 0, done.stdout


def test_opened_in_another_jupyterlab_it_is_green_and_the_update_passes(
    origin, learner, page, tmp_path
):
    with serving(tmp_path / "home", learner, ["-m", "jupyterlab"], AUTOSAVE) as lab:
        open_until_saved(page, lab.address(NAME), learner / LESSON / NAME)
    saved = nbformat.read(learner / LESSON / NAME, as_version=4)
    assert "version" in saved.metadata.language_info and git(learner, "status", "--short") != ""
    assert check(learner) == []
    done = pytest_in(learner)
    assert done.returncode == 0, done.stdout
    new_version(origin)
    command = [sys.executable, "-m", "calibcourse", "update"]
    subprocess.run(command, cwd=learner, check=True)
    assert git(learner, "status", "--short") == ""
    assert "Five other words" in (learner / LESSON / NAME).read_text(encoding="utf-8")
