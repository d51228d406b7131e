"""What the lessons ask for: every *Predict* has an input, every prediction a measured result."""

import ast
import re
from importlib import import_module
from pathlib import Path

import jupytext
import pytest

from calibcourse.exercises import all_predictions

SOURCES = Path(__file__).parents[1] / "solutions"


def _calls(tree, method):
    """Names of the predictions that a piece of code calls a method of, with the calls."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == method
            and isinstance(node.func.value, ast.Attribute)
            and isinstance(node.func.value.value, ast.Name)
            and node.func.value.value.id == "ex"
        ):
            yield node.func.value.attr, node


LESSONS = sorted(SOURCES.glob("[0-9]*.py"))


@pytest.mark.parametrize("path_", LESSONS, ids=lambda p: p.name[:2])
def test_every_prediction_is_asked_once_and_then_compared_once(path_):
    declared = {one.name: one for one in all_predictions() if one.lesson == path_.name[:2]}
    tree = ast.parse(path_.read_text(encoding="utf-8"))
    asked = {name: call.lineno for name, call in _calls(tree, "ask")}
    assert sorted(name for name, _ in _calls(tree, "ask")) == sorted(declared)
    compared = [(name, call) for name, call in _calls(tree, "compare")]
    assert sorted(name for name, _ in compared) == sorted(declared)
    for name, call in compared:
        assert asked[name] < call.lineno, name
        # A number that was typed would be no measurement.
        assert not isinstance(call.args[0], ast.Constant), name
        if isinstance(call.args[0], ast.IfExp):
            assert set(_ends(call.args[0])) <= set(declared[name].options), name
    for name, call in _calls(tree, "mark"):
        assert asked[name] < call.lineno and not declared[name].options


def _ends(node):
    """The constants that a conditional expression can come to."""
    if isinstance(node, ast.IfExp):
        yield from _ends(node.body)
        yield from _ends(node.orelse)
    elif isinstance(node, ast.Constant):
        yield node.value


@pytest.mark.parametrize("path_", LESSONS, ids=lambda p: p.name[:2])
def test_every_predict_in_the_prose_has_its_input_below(path_):
    cells = jupytext.read(path_, fmt="py:percent").cells
    for cell, below in zip(cells, [*cells[1:], None], strict=True):
        asks = cell.cell_type == "markdown" and cell.source.count("**Predict")
        is_input = below is not None and re.fullmatch(r"(?:ex\.\w+\.ask\(\)\s*)+", below.source)
        assert (asks == 1) if is_input else not asks, cell.source


def test_names_are_those_of_the_module():
    for one in all_predictions():
        lesson = import_module(f"calibcourse.exercises.lesson_{one.lesson}")
        assert getattr(lesson, one.name) is one
