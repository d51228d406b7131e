"""A lesson's stored notebook as a page: pictures with their texts, plumbing folded, nothing run."""

import base64
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from html import escape

from nbformat import NotebookNode

from ..drawing import only_draws
from ..source import EXERCISE, FOLDED, QUESTION

FIGURES = "figures"  # the folder beside the lessons' pages
_SOLUTION = re.compile(r"^ex\.\w+\.check\(", re.M)
_EXPLORER = re.compile(r"^widgets\.(\w+)\(", re.M)
_REMOTE_PICTURE = re.compile(r"!\[([^\]]*)\]\(https?://[^)]*\)")
_PLACEHOLDER = (
    "*{}: in the notebook its sliders stand here. The figure shows the same at a glance.*"
)


@dataclass
class LessonPage:
    """What Sphinx reads of one lesson.

    Attributes:
        notebook: the page, whose figures are named files.
        figures: PNG by file name, in the folder `FIGURES`.
    """

    notebook: NotebookNode
    figures: dict[str, bytes] = field(default_factory=dict)


def lesson_page(
    notebook: NotebookNode, name: str, explorer: Callable[[str], str | None] = lambda name: None
) -> LessonPage:
    """The page of a lesson.

    Args:
        notebook: with solutions and outputs; it is not changed.
        name: of the lesson, for the names of its figures.
        explorer: from the name of an explorer in `widgets` to its HTML, None where only its static
            twin is shown.
    """
    page = LessonPage(deepcopy(notebook))
    for cell in page.notebook.cells:
        folded = cell.metadata.get("jupyter") == FOLDED
        kept = [tag for tag in cell.metadata.get("tags", ()) if tag == EXERCISE]  # a CSS class
        cell.metadata = NotebookNode({"tags": kept} if kept else {})
        if cell.cell_type == "markdown":
            cell.source = without_remote_pictures(cell.source)
        elif folded and not cell.outputs:
            cell.metadata["tags"] = ["remove-cell"]  # it finds or installs the package
        elif QUESTION.fullmatch(cell.source):
            cell.metadata["tags"] = ["remove-input"]
            cell.outputs = [_question(output) for output in cell.outputs]
        else:
            _show_code(cell, folded)
            cell.outputs = [_output(output, cell, name, page, explorer) for output in cell.outputs]
    return page


def without_remote_pictures(text: str) -> str:
    """Markdown in which a badge is its text: a page of the site asks no other server.

    Example:
        >>> without_remote_pictures("[![Binder](https://mybinder.org/b.svg)](https://x.org)")
        '[Binder](https://x.org)'
    """
    return _REMOTE_PICTURE.sub(r"\1", text)


def _show_code(cell: NotebookNode, folded: bool) -> None:
    if _SOLUTION.search(cell.source):
        shown = "Show a solution", "Hide the solution"
    elif folded or only_draws(cell.source):
        shown = "Show the code of this figure", "Hide the code of this figure"
    else:
        return
    cell.metadata["tags"] = [*cell.metadata.get("tags", ()), "hide-input"]
    cell.metadata["mystnb"] = {"code_prompt_show": shown[0], "code_prompt_hide": shown[1]}


def _output(
    output: NotebookNode,
    cell: NotebookNode,
    name: str,
    page: LessonPage,
    explorer: Callable[[str], str | None],
) -> NotebookNode:
    data = output.get("data", {})
    if "image/png" in data:
        file = f"{name}-{len(page.figures) + 1}.png"
        page.figures[file] = base64.b64decode(data["image/png"])
        known = output.metadata.get("image/png", {})
        width = f' width="{int(known["width"])}px"' if "width" in known else ""
        alt = escape(" ".join(known.get("alt", "").split()))
        look = "drawing" if known.get("drawing") else "photographs"
        text = f'<img src="{FIGURES}/{file}" alt="{alt}"{width} class="calibcourse-{look}">'
        return _replaced(output, "text/markdown", text)
    made = _EXPLORER.search(cell.source)
    if made and output.output_type == "execute_result":
        moving = explorer(made[1])
        if moving is not None:
            return _replaced(output, "text/html", moving)
        text = _PLACEHOLDER.format(data.get("text/plain", "Explorer"))
        return _replaced(output, "text/markdown", text)
    return output


def _question(output: NotebookNode) -> NotebookNode:
    """An input for a prediction as what it asks: a page without a kernel keeps no answers."""
    lines = output.get("data", {}).get("text/plain", "").splitlines()[:-1]  # less "Run this cell"
    return _replaced(output, "text/html", f"<p>{'<br>'.join(map(escape, lines))}</p>")


def _replaced(output: NotebookNode, kind: str, content: str) -> NotebookNode:
    return NotebookNode(
        output_type="display_data", data=NotebookNode({kind: content}), metadata=NotebookNode()
    )
