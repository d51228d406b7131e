"""What Sphinx is told of the course: formulas become MathML, and docstrings are nearly Markdown."""

import re
from collections.abc import Iterable
from itertools import groupby

from docutils import nodes
from sphinx.application import Sphinx

from ..formulas import mathml

_ROW = re.compile(r"\|[ -].*\|")


def _inline(translator, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _block(translator, node: nodes.math_block) -> None:
    # A long formula is scrolled within its own line, by keyboard too.
    opened = '<div class="formula" role="group" aria-label="formula" tabindex="0">'
    translator.body.append(f"{opened}{mathml(node.astext(), display=True)}</div>\n")
    raise nodes.SkipNode


def as_restructured(lines: list[str]) -> list[str]:
    r"""A docstring's lines for reStructuredText: a bar is a bar, and Markdown's table is a table.

    Example:
        >>> as_restructured(["mean |u - err|", "", ">>> a | b"])
        ['mean \\|u - err\\|', '', '>>> a | b']
    """
    found: list[str] = []
    for is_table, block in groupby(lines, key=lambda line: bool(_ROW.fullmatch(line))):
        written = _list_table if is_table else _with_bars
        found += written(block)
    return found


def _with_bars(lines: Iterable[str]) -> list[str]:
    code = re.compile(r"\s*(>>>|\.\.\. |\.\. )")
    return [line if code.match(line) else line.replace("|", r"\|") for line in lines]


def _list_table(lines: Iterable[str]) -> list[str]:
    found = ["", ".. list-table::", "   :header-rows: 1", ""]
    for line in lines:
        if not set(line) <= set("|-: "):
            cells = _with_bars(map(str.strip, line[1:-1].split(" | ")))
            found += [f"   {'  ' if i else '* '}- {cell}" for i, cell in enumerate(cells)]
    return [*found, ""]


def _docstring(app: Sphinx, what: str, name: str, thing: object, options, lines: list[str]) -> None:
    lines[:] = as_restructured(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of both."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    # After napoleon, which reads the docstring as it was written.
    app.connect("autodoc-process-docstring", _docstring, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
