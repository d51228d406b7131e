"""What every notebook of the course keeps to: rules that need the stored notebook alone.

A rule takes a notebook and returns one line per break, none when it is kept. The tests apply
`RULES` to every notebook, and `calibcourse build` tells the author what they will find.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nbformat import NotebookNode

from .build import WIDGET_VIEW, notebook_text, read_notebook, stored_measurement
from .source import (
    BEGIN,
    BLANK,
    END,
    EXERCISE,
    FOLDED,
    LESSON,
    QUESTION,
    SOLUTION,
    count_words,
    find_sources,
    notebook_path,
    solution_blocks,
    with_references,
)

MAX_BYTES = 1_000_000
MAX_SECONDS, MAX_MEMORY_GB = 60, 1.5  # on two cores; Binder gives about 2 GB
CODE_CELLS, WORDS = (12, 24), (900, 1_800)
CODE_CELLS_00, WORDS_00 = (5, 22), (200, 1_800)  # "Start here" is one figure and how things work
MAX_LINES = 40  # a code cell is read on one screen
TAGS = {"nbval-ignore-output", EXERCISE}

_MACHINE = re.compile(
    r"ipykernel_\d+|site-packages|\b0x[0-9a-f]{7,}\b"
    r"|(?<![\w.~])/(?:home|Users|root|tmp|opt|usr|mnt|srv|var|private|work|content)/[\w.]"
    r"|\b[A-Z]:\\\w"
)


def executed_in_order(notebook: NotebookNode) -> list[str]:
    """Code cells are not empty and bear the counts 1, 2, 3, ...: nbval skips a cell without one."""
    counts = [cell.execution_count for cell in _code(notebook)]
    empty = [
        f"code cell {i} is empty" for i, c in enumerate(_code(notebook)) if not c.source.strip()
    ]
    in_order = counts == list(range(1, len(counts) + 1))
    return empty + ([] if in_order else [f"execution counts must be 1, 2, 3, ..., got {counts}"])


def no_errors_or_warnings(notebook: NotebookNode) -> list[str]:
    """No output is an error or goes to stderr."""
    return [
        f"{where}: {'error' if output.output_type == 'error' else 'stderr'} output"
        for where, output in _outputs(notebook)
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def named_cells(notebook: NotebookNode) -> list[str]:
    """Cell ids are the lesson's number and a hash, all different."""
    ids = [cell.get("id", "") for cell in notebook.cells]
    wrong = [
        f"cell id {i!r} is not NN-hash" for i in ids if not re.fullmatch(r"\d\d-[0-9a-f]{8}", i)
    ]
    return wrong + ([] if len(set(ids)) == len(ids) else ["cell ids repeat"])


def no_trace_of_a_machine(notebook: NotebookNode) -> list[str]:
    """No folder, kernel number or memory address of the machine that built it."""
    texts = [(f"cell {i}", cell.source) for i, cell in enumerate(notebook.cells)]
    for where, output in _outputs(notebook):
        texts += [(where, text) for text in _texts(output)]
    return [f"{where}: {found[0]!r}" for where, text in texts if (found := _MACHINE.search(text))]


def small_enough(notebook: NotebookNode) -> list[str]:
    """The file stays under 1 MB."""
    size = len(notebook_text(notebook).encode())
    return [] if size < MAX_BYTES else [f"{size:,} bytes, at most {MAX_BYTES:,} allowed"]


def pictures_described(notebook: NotebookNode) -> list[str]:
    """Every picture has alternative text, in outputs, markdown and HTML."""
    breaks = []
    for where, output in _outputs(notebook):
        for kind in output.get("data", {}):
            described = output.metadata.get(kind, {}).get("alt", "").strip()
            if kind.startswith("image/") and not described:
                breaks.append(f"{where}: {kind} without alt text")
        breaks += [f"{where}: {image}" for text in _texts(output) for image in _undescribed(text)]
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            breaks += [f"cell {i}: {image}" for image in _undescribed(cell.source)]
    return breaks


def known_tags(notebook: NotebookNode) -> list[str]:
    """No cell metadata but allowed tags and folding; no NBVAL comment, which would act unseen."""
    breaks = []
    for i, cell in enumerate(notebook.cells):
        folded = cell.metadata.get("jupyter", FOLDED) == FOLDED
        unknown = set(cell.metadata) - {"tags", "jupyter"}
        if unknown or not folded or set(cell.metadata.get("tags", ())) - TAGS:
            breaks.append(f"cell {i}: metadata {dict(cell.metadata)}, only tags {TAGS} are allowed")
        if cell.cell_type == "code" and re.search(r"#\s*(NBVAL|PYTEST_VALIDATE)_", cell.source):
            breaks.append(f"cell {i}: an NBVAL comment; use a tag")
    return breaks


def folded_is_no_loss(notebook: NotebookNode) -> list[str]:
    """Below the bootstrap, a folded cell shows something, and neither claims nor asks anything."""
    breaks = []
    for cell in list(_code(notebook))[1:]:
        if "jupyter" not in cell.metadata:
            continue
        shown = any(  # an explorer is stored as its words
            "image/png" in output.get("data", {}) or output.output_type == "execute_result"
            for output in cell.outputs
        )
        asks = EXERCISE in cell.metadata.get("tags", ())
        if not shown or asks or re.search(r"\bclaim\(|\.compare\(", cell.source):
            breaks.append(f"a folded cell must draw, and neither claim nor ask: {cell.source!r}")
    return breaks


def mostly_compared(notebook: NotebookNode) -> list[str]:
    """At most half of the code cells are ignored by nbval, and none that makes a claim."""
    code = list(_code(notebook))
    ignored = [cell for cell in code if "nbval-ignore-output" in cell.metadata.get("tags", ())]
    breaks = [f"ignored cell makes a claim: {c.source!r}" for c in ignored if "claim(" in c.source]
    if 2 * len(ignored) > len(code):
        breaks.append(f"{len(ignored)} of {len(code)} code cells are ignored, at most half may be")
    return breaks


def within_budget(notebook: NotebookNode) -> list[str]:
    """The measured time and memory are stored, shown in the first cell, and within the budget."""
    measured = stored_measurement(notebook)
    if measured is None:
        return ["no measured seconds and memory in the metadata"]
    breaks = []
    shown = f"{measured.seconds} s to run", f"{measured.peak_memory_gb:.1f} GB of memory"
    if not all(text in notebook.cells[0].source for text in shown):
        breaks.append(f"the first cell does not show {' and '.join(shown)}")
    if not 0 < measured.seconds <= MAX_SECONDS:
        breaks.append(f"{measured.seconds} s to run, at most {MAX_SECONDS} allowed")
    if not 0 < measured.peak_memory_gb <= MAX_MEMORY_GB:
        breaks.append(f"{measured.peak_memory_gb} GB, at most {MAX_MEMORY_GB} allowed")
    return breaks


def sized_like_a_lesson(notebook: NotebookNode) -> list[str]:
    """Code cells, words, and lines per code cell are what a reader can take in."""
    start_here = notebook.cells[0].get("id", "").startswith("00-")
    limits = {
        "code cells": (
            sum(not QUESTION.fullmatch(cell.source) for cell in _code(notebook)),
            CODE_CELLS_00 if start_here else CODE_CELLS,
        ),
        "words": (count_words(notebook.cells), WORDS_00 if start_here else WORDS),
    }
    breaks = [
        f"{number} {what}, {low} to {high} allowed"
        for what, (number, (low, high)) in limits.items()
        if not low <= number <= high
    ]
    for i, cell in enumerate(notebook.cells):
        lines = cell.source.count("\n") + 1
        if cell.cell_type == "code" and lines > MAX_LINES:
            breaks.append(f"cell {i} has {lines} lines, at most {MAX_LINES} allowed")
    return breaks


def normalised(notebook: NotebookNode) -> list[str]:
    """No widget state, no placeholder and no solution marker."""
    breaks = []
    if set(notebook.metadata) - {"kernelspec", "language_info", "calibcourse"}:
        breaks.append(f"metadata {sorted(notebook.metadata)} holds more than it should")
    breaks += [
        f"{where}: a stored widget view shows as an error"
        for where, output in _outputs(notebook)
        if WIDGET_VIEW in output.get("data", {})
    ]
    for i, cell in enumerate(notebook.cells):
        if re.search(r"\{\{\s*(header|bootstrap)", cell.source):
            breaks.append(f"cell {i}: a placeholder is left")
        if BEGIN in cell.source or END in cell.source:
            breaks.append(f"cell {i}: a solution marker is left")
    return breaks


RULES: tuple[Callable[[NotebookNode], list[str]], ...] = (
    executed_in_order,
    no_errors_or_warnings,
    named_cells,
    no_trace_of_a_machine,
    small_enough,
    pictures_described,
    known_tags,
    folded_is_no_loss,
    mostly_compared,
    within_budget,
    sized_like_a_lesson,
    normalised,
)


def no_solution_left(lesson: NotebookNode, source: str) -> list[str]:
    """The learner's copy has as many blanks as its source has solutions, and none of their text."""
    blocks = [_squeezed(block) for block in solution_blocks(with_references(source))]
    texts = [cell.source for cell in lesson.cells]
    texts += [text for _, output in _outputs(lesson) for text in _texts(output)]
    breaks = [
        f"a solution is left: {block!r}"
        for block in blocks
        if any(block in _squeezed(text) for text in texts)
    ]
    blanks = sum(cell.source.count(BLANK) for cell in lesson.cells)
    if blanks != len(blocks):
        breaks.append(f"{blanks} blanks for {len(blocks)} solutions")
    return breaks


def broken_rules(root: Path, numbers: Sequence[str] = ()) -> list[str]:
    """Every broken rule in the stored notebooks of some lessons; none means all lessons."""
    breaks = []
    for source in find_sources(root, numbers):
        for kind in (LESSON, SOLUTION):
            path = notebook_path(source, kind)
            if not path.exists():
                continue
            notebook = read_notebook(path)
            found = [line for rule in RULES for line in rule(notebook)]
            if kind == LESSON:
                found += no_solution_left(notebook, source.read_text(encoding="utf-8"))
            breaks += [f"{kind}/{path.name}: {line}" for line in found]
    return breaks


def _code(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def _outputs(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    for i, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            yield f"cell {i}", output


def _texts(output: NotebookNode) -> list[str]:
    """All text of an output, pictures left out."""
    data = output.get("data", {})
    texts = [str(value) for kind, value in data.items() if not kind.startswith("image/")]
    texts += [output.get("text", ""), *output.get("traceback", ())]
    return [re.sub(r"base64,[A-Za-z0-9+/=\s]+", "base64,", text) for text in texts]


def _undescribed(text: str) -> list[str]:
    markdown = re.findall(r"!\[\s*\]\([^)]*\)", text)
    described = re.compile(r"""alt=(?:"\s*[^"\s]|'\s*[^'\s])""")
    html = [tag for tag in re.findall(r"<img\b[^>]*>", text) if not described.search(tag)]
    return [f"picture without alt text: {image[:60]}" for image in markdown + html]


def _squeezed(code: str) -> str:
    """Code without the white space that may differ, so that a moved solution is still found."""
    return re.sub(r"\s+", " ", code).strip()
