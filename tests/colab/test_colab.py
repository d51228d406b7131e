"""The published course on Colab: installed by its own first cell beside Colab's own packages."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from packaging.utils import canonicalize_name

from .conftest import Colab

pytestmark = pytest.mark.colab

VIEW = "application/vnd.jupyter.widget-view+json"
ADDED = {"calibcourse"}
NOT_THERE = """\
import importlib.util, sys

assert "google.colab" in sys.modules
importlib.util.find_spec("calibcourse") is None"""
# `set_state` is what a message from the page calls when a learner drags a slider.
MOVE = """\
import ipywidgets
from calibcourse.widgets import Explorer

explorers = [w for w in ipywidgets.Widget.widgets.values() if isinstance(w, Explorer)]
for explorer in explorers:
    picture = explorer.children[-1]
    for name, control in explorer.controls.items():
        before = picture.value
        control.set_state({"value": control.min if control.value > control.min else control.max})
        assert picture.value != before, name
print(*[explorer.model_id for explorer in explorers])"""


def outputs(cell: NotebookNode) -> list[str]:
    """What a cell wrote to stdout, to stderr and as its result."""
    return [each.get("text") or each.data["text/plain"] for each in cell.outputs]


@pytest.fixture(scope="session")
def command(lesson: Callable[[str], NotebookNode]) -> list[str]:
    """The command with which the first cell of a lesson installs, without the interpreter."""
    called = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        patch.setitem(sys.modules, "google.colab", object())
        patch.setattr(subprocess, "run", lambda command, **options: called.append(command))
        exec(lesson("00").cells[1].source, {})
    (words,) = called
    return words[1:]


@pytest.mark.parametrize("without", [[], ["--no-deps"]], ids=["as it is", "with dependencies"])
def test_pip_plans_to_leave_colabs_packages_alone(
    colab: Colab, command: list[str], without: list[str]
):
    """With dependencies it is the ranges in pyproject.toml that leave them alone."""
    words = [word for word in command if word not in without]
    plan = json.loads(colab.call(*words, "--dry-run", "--report=-"))
    assert {canonicalize_name(each["metadata"]["name"]) for each in plan["install"]} == ADDED


@pytest.fixture(scope="session")
def installed(colab: Colab, lesson: Callable[[str], NotebookNode]) -> tuple[dict, dict, list]:
    """Packages before and after the first cell, and the cells: probe, bootstrap, bootstrap."""
    bootstrap = lesson("00").cells[1].source
    before = colab.installed()
    cells = [new_code_cell(source) for source in (NOT_THERE, bootstrap, bootstrap)]
    ran = colab.execute(new_notebook(cells=cells)).cells
    return before, colab.installed(), ran


def test_the_environment_is_like_colabs(installed):
    before, _, (probe, *_) = installed
    assert outputs(probe) == ["True"]
    assert before["ipywidgets"] == "7.7.1"
    assert before.keys() >= {"torch", "torchvision", "numpy", "matplotlib", "ipykernel"}
    assert not before.keys() & (ADDED | {"jupyterlab", "jupytext"})


def test_the_first_cell_adds_one_package_and_changes_none(installed):
    before, after, _ = installed
    assert after.keys() - before.keys() == ADDED
    assert {name: after[name] for name in before} == before


def test_nothing_that_the_package_requires_is_missing(colab: Colab, installed):
    """`--no-deps` left nothing out that Colab does not have."""
    assert colab.call("-m", "pip", "check") == "No broken requirements found.\n"


def test_the_first_cell_is_silent_once_it_has_installed(installed):
    assert outputs(installed[2][2]) == []


@pytest.mark.parametrize("number", ["00", "01"])
def test_a_lesson_runs_and_its_explorers_move(
    colab: Colab, lesson: Callable[[str], NotebookNode], installed, number: str
):
    notebook = lesson(number)
    notebook.cells.append(new_code_cell(MOVE))
    *cells, moved = colab.execute(notebook).cells
    written = [each for cell in cells for each in cell.get("outputs", ())]
    assert [each for each in written if each.get("name") == "stderr"] == []
    shown = {each.data[VIEW]["model_id"] for each in written if VIEW in each.get("data", {})}
    (explorers,) = outputs(moved)
    assert shown >= set(explorers.split())
    assert len(explorers.split()) == (number == "01")


def test_the_doctor_finds_no_problem(colab: Colab, installed):
    said = colab.call("-m", "calibcourse", "doctor")
    assert "no problems" in said and "\nproblem" not in said
    assert "ipywidgets         7.7.1" in said and "not needed on Colab" in said
