"""One minus sign for what is typed, one for what is read; `.github/CONTRIBUTING.md` has the rule.

Ruff keeps U+2212 out of docstrings and comments. Here the other half: texts that are shown as they
stand have no hyphen for a minus.
"""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "calibcourse"
SHOWN = [*PACKAGE.glob("exercises/lesson_*.py"), *PACKAGE.glob("plots/*.py")]
# Between two terms, or before a digit or a variable; not in TeX, which sets its own, nor in code.
HYPHEN = re.compile(r"(?<=[\w)}|²]) - (?=[\w({|])|(?<=[\s(])-(?=\d)")
TEX_OR_CODE = re.compile(r"\$[^$]*\$|`[^`]*`|```.*?```", re.DOTALL)


def hyphens(text: str) -> list[str]:
    """What stands around each hyphen that is meant as a minus."""
    plain = TEX_OR_CODE.sub("", text)
    return [plain[max(0, at.start() - 20) : at.end() + 20] for at in HYPHEN.finditer(plain)]


def shown_texts(source: str) -> list[str]:
    """The strings of a module, but its docstrings and those that name something."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [
        node.value
        for node in strings
        if isinstance(node.value, str) and id(node) not in docstrings and " " in node.value
    ]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_minus_that_is_shown_is_no_hyphen(path):
    texts = shown_texts(path.read_text(encoding="utf-8"))
    assert [found for text in texts for found in hyphens(text)] == []


def test_a_minus_in_the_theory_is_no_hyphen():
    assert hyphens((PACKAGE / "THEORY.md").read_text(encoding="utf-8")) == []


def test_a_hyphen_for_a_minus_is_found():
    assert hyphens("bounds 1 - p_y") and hyphens("margins -2 and 3") and hyphens("(-2, |u| - c)")
    assert not hyphens("a well-known $1 - p$ and `1 - p`, 1 − p, 2–3")
    assert shown_texts('"""1 - p"""\nx = "1 - p"\ny = f"2 - {x} q"') == ["1 - p", "2 - ", " q"]
