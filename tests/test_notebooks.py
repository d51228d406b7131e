"""Every notebook of the course is in step with its source and keeps the rules.

nbval runs them and compares their outputs; here nothing is executed. The second half shows, with a
notebook that breaks it, that each rule can fail.
"""

from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from calibcourse.course import rules
from calibcourse.course.bootstrap import read_address
from calibcourse.course.build import WIDGET_VIEW, check, differs, read_notebook
from calibcourse.course.publish import readme_differs
from calibcourse.course.source import LESSON, SOLUTION, find_sources, notebook_path

ROOT = Path(__file__).parents[1]
SOURCES = find_sources(ROOT)
NOTEBOOKS = [  # a missing one is reported once, as out of step
    path
    for source in SOURCES
    for kind in (LESSON, SOLUTION)
    if (path := notebook_path(source, kind)).exists()
]


# ------------------------------------------------------------------------- the course's notebooks


@pytest.mark.parametrize("kind", [LESSON, SOLUTION])
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_notebook_is_in_step_with_its_source(source, kind):
    assert differs(source, kind, read_address(ROOT)) == []


def test_no_notebook_is_without_a_source():
    assert [line for line in check(ROOT) if "has no source" in line] == []


def test_the_readme_follows_the_published_address():
    assert readme_differs(ROOT) == []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_notebook_keeps_the_rule(path, rule):
    assert rule(read_notebook(path)) == []


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.parent.name == LESSON], ids=lambda path: path.stem
)
def test_no_solution_is_left_in_the_learners_copy(path):
    source = ROOT / SOLUTION / f"{path.stem}.py"
    assert rules.no_solution_left(read_notebook(path), source.read_text(encoding="utf-8")) == []


# ------------------------------------------------------------------------- each rule can fail


def good_notebook() -> NotebookNode:
    """What every rule accepts: 12 executed cells, 902 words, a described picture, a claim."""
    header = "20 s to run on 2 CPU cores · 0.8 GB of memory"
    cells = [new_markdown_cell(f"# Title\n\n{header}\n\n" + "word " * 900)]
    for i in range(12):
        cells.append(new_code_cell(f"claim('it holds', {i})", execution_count=i + 1))
    cells[1].outputs = [new_output("stream", name="stdout", text="it holds\n")]
    png = {"image/png": "iVBORw0KGgo=", "text/plain": "a picture"}
    described = {"image/png": {"alt": "a picture"}}
    cells[2].outputs = [new_output("display_data", data=png, metadata=described)]
    cells[3].source = "history = fit(model)"
    cells[3].metadata["tags"] = ["nbval-ignore-output"]
    for i, cell in enumerate(cells):
        cell["id"] = f"01-{i:08x}"
    measured = {"seconds": 20, "peak_memory_gb": 0.8, "cores": 2}
    return new_notebook(cells=cells, metadata={"calibcourse": measured})


def show(notebook: NotebookNode, **data: str) -> None:
    """Add an output to the first code cell; underscores in a name stand for a slash."""
    data = {kind.replace("_", "/"): value for kind, value in data.items()}
    notebook.cells[1].outputs.append(new_output("display_data", data=data))


def write(notebook: NotebookNode, text: str) -> None:
    notebook.cells[0].source += text


def tag(notebook: NotebookNode, tag: str, *cells: int) -> None:
    for cell in cells:
        notebook.cells[cell].metadata["tags"] = [tag]


def fold(notebook: NotebookNode, cell: int, source: str = "plots.show(fig)") -> None:
    notebook.cells[cell].update(source=source)
    notebook.cells[cell].metadata["jupyter"] = {"source_hidden": True}


def _unclaim(notebook: NotebookNode, *cells: int) -> None:
    for cell in cells:
        notebook.cells[cell].source = "print()"
    tag(notebook, "nbval-ignore-output", *cells)


BREAKS = [
    (rules.executed_in_order, lambda nb: nb.cells[5].update(execution_count=None)),
    (rules.executed_in_order, lambda nb: nb.cells[5].update(execution_count=7)),
    (rules.executed_in_order, lambda nb: nb.cells.pop(5)),
    (rules.executed_in_order, lambda nb: nb.cells[5].update(source=" \n")),
    (
        rules.no_errors_or_warnings,
        lambda nb: nb.cells[1].outputs.append(new_output("error", ename="E", traceback=[])),
    ),
    (
        rules.no_errors_or_warnings,
        lambda nb: nb.cells[1].outputs.append(new_output("stream", name="stderr", text="hm")),
    ),
    (rules.named_cells, lambda nb: nb.cells[5].update(id="6bd3c8a1")),
    (rules.named_cells, lambda nb: nb.cells[5].update(id=nb.cells[4].id)),
    (rules.no_trace_of_a_machine, lambda nb: show(nb, text_plain="/tmp/ipykernel_123/4.py:1")),
    (rules.no_trace_of_a_machine, lambda nb: show(nb, text_plain="ipykernel_4321")),
    (rules.no_trace_of_a_machine, lambda nb: show(nb, text_html="<p>/home/ada/course</p>")),
    (rules.no_trace_of_a_machine, lambda nb: show(nb, text_plain="C:\\Users\\ada")),
    (rules.no_trace_of_a_machine, lambda nb: show(nb, text_plain="<Model at 0x7f51e8984820>")),
    (rules.no_trace_of_a_machine, lambda nb: write(nb, "see '/Users/ada/x'")),
    (rules.small_enough, lambda nb: show(nb, image_png="A" * 1_000_000)),
    (rules.pictures_described, lambda nb: show(nb, image_png="iVBORw0KGgo=")),
    (rules.pictures_described, lambda nb: nb.cells[2].outputs[0].metadata["image/png"].clear()),
    (
        rules.pictures_described,
        lambda nb: nb.cells[2].outputs[0].metadata["image/png"].update(alt=" "),
    ),
    (rules.pictures_described, lambda nb: write(nb, "![](picture.png)")),
    (rules.pictures_described, lambda nb: write(nb, '<img src="picture.png" alt="">')),
    (rules.pictures_described, lambda nb: show(nb, text_html="<img src='picture.png'>")),
    (rules.pictures_described, lambda nb: show(nb, text_html="<img src='picture.png' alt=' '>")),
    (rules.known_tags, lambda nb: tag(nb, "nbval-skip", 5)),
    (rules.known_tags, lambda nb: tag(nb, "raises-exception", 5)),
    (rules.known_tags, lambda nb: nb.cells[5].metadata.update(collapsed=True)),
    (rules.known_tags, lambda nb: nb.cells[5].metadata.update(jupyter={"outputs_hidden": True})),
    (rules.known_tags, lambda nb: nb.cells[5].update(source="# NBVAL_IGNORE_OUTPUT\nx")),
    (rules.folded_is_no_loss, lambda nb: fold(nb, 5)),  # it shows nothing
    (rules.folded_is_no_loss, lambda nb: fold(nb, 2, "plots.show(fig)\nclaim('x', True)")),
    (rules.folded_is_no_loss, lambda nb: fold(nb, 2, "plots.show(fig)\nex.guess.compare(1)")),
    (rules.folded_is_no_loss, lambda nb: (fold(nb, 2), tag(nb, "exercise", 2))),
    (rules.mostly_compared, lambda nb: tag(nb, "nbval-ignore-output", 5)),
    (rules.mostly_compared, lambda nb: _unclaim(nb, 4, 5, 6, 7, 8, 9)),
    (rules.within_budget, lambda nb: nb.metadata.pop("calibcourse")),
    (rules.within_budget, lambda nb: nb.metadata.calibcourse.update(seconds="20")),
    (rules.within_budget, lambda nb: nb.metadata.calibcourse.update(seconds=25)),
    (rules.within_budget, lambda nb: nb.metadata.calibcourse.update(peak_memory_gb=0.9)),
    (rules.sized_like_a_lesson, lambda nb: nb.cells.pop()),
    (rules.sized_like_a_lesson, lambda nb: nb.cells.extend(nb.cells[1:] * 2)),
    (rules.sized_like_a_lesson, lambda nb: nb.cells[0].update(source="# Title")),
    (rules.sized_like_a_lesson, lambda nb: write(nb, "word " * 900)),
    (rules.sized_like_a_lesson, lambda nb: nb.cells[5].update(source="x = 1\n" * 40)),
    (rules.normalised, lambda nb: nb.metadata.update(widgets={})),
    (rules.normalised, lambda nb: show(nb, **{WIDGET_VIEW: "{}"})),
    (rules.normalised, lambda nb: write(nb, "{{header: none}}")),
    (rules.normalised, lambda nb: nb.cells[5].update(source="    ### BEGIN SOLUTION\n")),
]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_keeps_the_rule(rule):
    notebook = good_notebook()
    nbformat.validate(notebook)
    assert rule(notebook) == []


@pytest.mark.parametrize(("rule", "spoil"), BREAKS)
def test_a_spoilt_notebook_breaks_the_rule(rule, spoil):
    notebook = good_notebook()
    spoil(notebook)
    assert rule(notebook) != []


def test_every_rule_is_shown_to_fail():
    assert {rule for rule, _ in BREAKS} == set(rules.RULES)


@pytest.mark.parametrize(("seconds", "memory"), [(61, 0.8), (20, 1.6), (0, 0.8), (20, 0)])
def test_the_budget_is_kept_to_in_truth_and_not_only_in_words(seconds, memory):
    notebook = good_notebook()
    notebook.metadata.calibcourse.update(seconds=seconds, peak_memory_gb=memory)
    shown = f"{seconds} s to run on 2 CPU cores · {memory:.1f} GB of memory"
    notebook.cells[0].source = notebook.cells[0].source.replace(
        "20 s to run on 2 CPU cores · 0.8 GB of memory", shown
    )
    (line,) = rules.within_budget(notebook)
    assert "allowed" in line


def test_what_only_draws_may_be_folded():
    notebook = good_notebook()
    fold(notebook, 2)
    notebook.cells[1].metadata["jupyter"] = {"source_hidden": True}  # the bootstrap cell
    tag(notebook, "exercise", 3)
    assert [line for rule in rules.RULES for line in rule(notebook)] == []


def test_addresses_and_pictures_are_no_trace_of_a_machine():
    notebook = good_notebook()
    write(
        notebook, "[a](https://example.org/home/x) and ../tmp/x, ratio 1/var/2, 0x7f, and ~/tmp/x"
    )
    show(notebook, text_html='<img alt="x" src="data:image/png;base64,AA+/tmp/x/home/y==">')
    assert rules.no_trace_of_a_machine(notebook) == []


def test_lesson_00_may_be_shorter():
    notebook = good_notebook()
    notebook.cells = notebook.cells[:8]
    notebook.cells[0].source = "word " * 300
    assert len(rules.sized_like_a_lesson(notebook)) == 2
    notebook.cells[0]["id"] = "00-00000000"
    assert rules.sized_like_a_lesson(notebook) == []


SOURCE = """\
# %%
def f(x):
    ### BEGIN SOLUTION
    y = x.exp()
    return y / y.sum()
    ### END SOLUTION
"""


def test_a_solution_is_found_wherever_it_is_left():
    blank = new_code_cell("def f(x):\n    ...  # your code here", execution_count=1)
    leaks = {
        "in a cell": new_code_cell("y = x.exp()\nreturn y / y.sum()"),
        "in prose": new_markdown_cell("```\ny = x.exp()\nreturn y / y.sum()\n```"),
        "in an output": new_code_cell(
            "ex.f.solution()",
            outputs=[new_output("stream", text="    y = x.exp()\n    return y / y.sum()\n")],
        ),
    }
    assert rules.no_solution_left(new_notebook(cells=[blank]), SOURCE) == []
    for leak in leaks.values():
        (line,) = rules.no_solution_left(new_notebook(cells=[blank, leak]), SOURCE)
        assert line.startswith("a solution is left: 'y = x.exp()")
    assert rules.no_solution_left(new_notebook(), SOURCE) == ["0 blanks for 1 solutions"]
