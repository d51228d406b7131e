"""From a lesson's source to the notebooks it stands for: text in, text out, nothing executed.

How a source is written is said in `build.py`.
"""

import difflib
import hashlib
import inspect
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from .bootstrap import Address, bootstrap_cell
from .drawing import only_draws

LESSON, SOLUTION = "lessons", "solutions"  # the two folders, and the two kinds of notebook
BLANK = "...  # your code here"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
WORDS_PER_MINUTE = 150

_BLOCK = re.compile(rf"^([ \t]*){BEGIN}[ \t]*\n(.*?)^[ \t]*{END}[ \t]*$", re.M | re.S)
_REFERENCE = re.compile(r"^([ \t]*)# \{\{solution: (\d\d)/(\w+)\}\}[ \t]*$", re.M)
_NEAR_MARKERS = [
    first + second
    for one in ("BEGIN", "START", "END")
    for other in ("SOLUTION", "ANSWER")
    for first, second in ((one, other), (other, one))
]
_HEADER = re.compile(r"^\{\{header:(.+)\}\}$", re.M)
_BOOTSTRAP = "# {{bootstrap}}"
_MAP = "{{map}}"
_EXERCISE_MINUTES = re.compile(r"about (\d+) minutes\.\*$", re.M)
FOLDED = {"source_hidden": True}  # the bootstrap cell and drawings: meaning first
# A cell that only asks for predictions: a question to answer, not code to read.
QUESTION = re.compile(r"(?:ex\.\w+\.ask\(\)\s*)+")
EXERCISE = "exercise"  # tag of the cells that wait for an answer, which JupyterLab and pages mark
_DRAWING = "drawing"  # tag in a source: fold this cell
_FORMATTER = re.compile(r"(?m)[ \t]*# fmt: (?:skip|off|on)$")
# Fixed, so that another patch version of Python or of the kernel changes no byte.
LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": LANGUAGE,
}


class BuildError(ValueError):
    """A lesson cannot be built; the message names the file and the line or cell."""


@dataclass(frozen=True)
class Measured:
    """What one execution of a notebook took: rounded up to 5 s and 0.1 GB."""

    seconds: int
    peak_memory_gb: float
    cores: int

    def steadied(self, before: "Measured | None") -> "Measured":
        """The figures of `before` where they are within one rounding step: noise is no change."""
        if before is None or before.cores != self.cores:
            return self
        seconds_agree = abs(self.seconds - before.seconds) <= 5
        memory_agrees = abs(self.peak_memory_gb - before.peak_memory_gb) < 0.15
        return Measured(
            before.seconds if seconds_agree else self.seconds,
            before.peak_memory_gb if memory_agrees else self.peak_memory_gb,
            self.cores,
        )


def find_sources(root: Path, numbers: Sequence[str] = ()) -> list[Path]:
    """The sources `solutions/NN_name.py` of the lessons asked for, or of all lessons.

    Args:
        root: the folder that holds `lessons/` and `solutions/`.
        numbers: lesson numbers such as "01"; none means all.

    Raises:
        BuildError: a number has no source, or two sources share one.
    """
    sources = sorted((root / SOLUTION).glob("[0-9][0-9]_*.py"))
    of_number = {source.name[:2]: source for source in sources}
    if len(of_number) < len(sources):
        raise BuildError(f"two sources in {root / SOLUTION} have the same number")
    unknown = [number for number in numbers if number not in of_number]
    if unknown or not sources:
        there = ", ".join(of_number) or "none"
        raise BuildError(f"no lesson {' '.join(unknown)}: {SOLUTION}/ has sources for {there}")
    return [of_number[number] for number in sorted(set(numbers))] or sources


def notebook_path(source: Path, kind: str) -> Path:
    """Where a source's notebook of one kind belongs: `lessons/` or `solutions/NN_name.ipynb`."""
    return source.parent.parent / kind / f"{source.stem}.ipynb"


def solution_blocks(text: str) -> list[str]:
    """What stands between the markers in a source or a cell."""
    return [found[2] for found in _BLOCK.finditer(text)]


def with_references(text: str) -> str:
    """A source or a cell with the lines below the reference's `def` for `# {{solution: 01/ece}}`.

    Raises:
        BuildError: there is no such exercise.

    Example:
        >>> print(with_references("    # {{solution: 00/over_confidence}}"))
            return confidence.mean() - correct.float().mean()
    """

    def body(found: re.Match) -> str:
        indent, lesson, name = found.groups()
        try:
            exercise = getattr(import_module(f"calibcourse.exercises.lesson_{lesson}"), name)
        except (ImportError, AttributeError):
            raise BuildError(f"no exercise {lesson}/{name} has a solution for the source") from None
        source = textwrap.dedent(inspect.getsource(exercise.reference)).rstrip("\n")
        return textwrap.indent(textwrap.dedent(source.partition("\n")[2]), indent)

    return _REFERENCE.sub(body, text)


def check_markers(text: str, name: str) -> None:
    """Refuse a source whose solution markers could leave a solution in the learner's copy.

    Args:
        text: the whole source.
        name: the file, for the message.

    Raises:
        BuildError: a marker is misspelt, nested, unbalanced or in prose, or a block crosses cells.
    """
    opened = None
    for number, line in enumerate(text.splitlines(), start=1):
        where, marker = f"{name}:{number}", line.strip()
        if marker == BEGIN:
            if opened is not None:
                raise BuildError(f"{where}: {BEGIN} inside the block begun in line {opened}")
            opened = number
        elif marker == END:
            if opened is None:
                raise BuildError(f"{where}: {END} without {BEGIN}")
            opened = None
        elif _resembles_marker(line):
            raise BuildError(f"{where}: {marker!r} resembles {BEGIN!r} or {END!r} but is neither")
        elif opened is not None and line.startswith("# %%"):
            break
    if opened is not None:
        raise BuildError(f"{name}:{opened}: {BEGIN} is not closed in its cell")


def _resembles_marker(line: str) -> bool:
    comment = re.sub(r"[\W_]", "", line.partition("#")[2]).upper()
    return any(
        difflib.SequenceMatcher(None, comment, near).ratio() > 0.85 for near in _NEAR_MARKERS
    )


def render(
    source: Path, kind: str, address: Address | None = None, measured: Measured | None = None
) -> NotebookNode:
    """The notebook that a source stands for, not executed.

    Args:
        source: `solutions/NN_name.py`.
        kind: `LESSON` (exercises blank) or `SOLUTION`.
        address: where the course is published, for the badges and the bootstrap cell.
        measured: seconds and memory for the header; None leaves them out.

    Raises:
        BuildError: a marker or placeholder is wrong.
    """
    text = source.read_text(encoding="utf-8")
    check_markers(text, source.name)
    drafts = jupytext.reads(with_references(text), fmt="py:percent").cells
    _check_placeholders(drafts, source.name)
    cells = [_cell(draft, kind, address) for draft in drafts]
    for cell in cells:
        if _MAP in cell.source:
            cell.source = cell.source.replace(_MAP, course_map(source.parent))
    for cell, identity in zip(cells, _ids(drafts, source.stem), strict=True):
        cell.id = identity
        if any(marker in cell.source for marker in (BEGIN, END)):
            raise BuildError(
                f"{source.name}: a solution marker where no code cell is: {cell.source!r}"
            )
    first = cells[0]
    prerequisites = _HEADER.search(first.source)[1].strip()
    header = _header(reading_minutes(drafts), exercise_minutes(drafts), prerequisites, measured)
    if address is not None:
        header += "\n\n" + address.badges(f"{kind}/{source.stem}.ipynb")
    first.source = _HEADER.sub(lambda _: header, first.source)
    metadata = dict(_METADATA, calibcourse=asdict(measured)) if measured else dict(_METADATA)
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)


def _cell(draft: NotebookNode, kind: str, address: Address | None) -> NotebookNode:
    source = draft.source
    if source.strip() == _BOOTSTRAP:
        source = bootstrap_cell(address)
    elif draft.cell_type == "code":
        source = _BLOCK.sub(_solved if kind == SOLUTION else _blank, source)
        source = _FORMATTER.sub("", source)
    cell = getattr(nbformat.v4, f"new_{draft.cell_type}_cell")(source)
    given = draft.metadata.get("tags", [])
    tags = [tag for tag in given if tag != _DRAWING] + [EXERCISE] * (BEGIN in draft.source)
    if tags:
        cell.metadata["tags"] = tags
    if draft.cell_type == "code" and (
        draft.source.strip() == _BOOTSTRAP or _DRAWING in given or only_draws(draft.source)
    ):
        cell.metadata["jupyter"] = dict(FOLDED)
    return cell


def _ids(drafts: list[NotebookNode], lesson: str) -> Iterator[str]:
    seen = Counter()
    for draft in drafts:
        key = (lesson, draft.cell_type, draft.source)
        digest = hashlib.sha256(repr((*key, seen[key])).encode()).hexdigest()
        seen[key] += 1
        yield f"{lesson[:2]}-{digest[:8]}"


def _blank(block: re.Match) -> str:
    return block[1] + BLANK


def _solved(block: re.Match) -> str:
    return block[2].rstrip("\n")


def _check_placeholders(cells: list[NotebookNode], name: str) -> None:
    first_is_title = cells and cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    if not first_is_title or len(_HEADER.findall(cells[0].source)) != 1:
        raise BuildError(
            f"{name}: the first cell must be markdown, open with '# Title' and hold the line "
            "{{header: PREREQUISITES}} once"
        )
    bootstraps = [cell for cell in cells if cell.source.strip() == _BOOTSTRAP]
    if [cell.cell_type for cell in bootstraps] != ["code"]:
        raise BuildError(f"{name}: one code cell must hold just '{_BOOTSTRAP}'")
    unknown = [
        line
        for cell in cells
        for line in cell.source.splitlines()
        if re.fullmatch(r"[#\s]*\{\{.*\}\}\s*", line)
        and not (cell is cells[0] and _HEADER.fullmatch(line))
        and not (cell.cell_type == "markdown" and line == _MAP)
        and cell is not bootstraps[0]
    ]
    if unknown:
        raise BuildError(f"{name}: unknown or misplaced placeholder {unknown[0]!r}")


def _header(reading: int, exercises: int, prerequisites: str, measured: Measured | None) -> str:
    parts = [f"{reading} min to read"]
    if exercises:
        parts.append(f"{exercises} min of exercises")
    if measured is not None:
        cores = f"{measured.cores} CPU core{'s' if measured.cores > 1 else ''}"
        parts.append(f"{measured.seconds} s to run on {cores}")
        parts.append(f"{measured.peak_memory_gb:.1f} GB of memory")
    return " · ".join([*parts, f"prerequisites: {prerequisites}"])


def course_map(folder: Path) -> str:
    """A table in Markdown of all lessons, with links and minutes: what `{{map}}` stands for.

    Args:
        folder: that holds the sources.

    Returns:
        A row per lesson, then the sums; no newline at the end.
    """
    rows, reading, exercises = [], 0, 0
    for source in sorted(folder.glob("[0-9][0-9]_*.py")):
        cells = jupytext.read(source, fmt="py:percent").cells
        title = cells[0].source.splitlines()[0].removeprefix("# ")
        minutes = reading_minutes(cells), exercise_minutes(cells)
        reading, exercises = reading + minutes[0], exercises + minutes[1]
        rows.append(f"| [{title}]({source.stem}.ipynb) | {minutes[0]} | {minutes[1]} |")
    head = ["| lesson | minutes to read | of exercises |", "|---|---|---|"]
    return "\n".join([*head, *rows, f"| in all | {reading} | {exercises} |"])


def reading_minutes(cells: Iterable[NotebookNode]) -> int:
    """How long a lesson's prose takes, rounded up."""
    return math.ceil(count_words(cells) / WORDS_PER_MINUTE)


def exercise_minutes(cells: Iterable[NotebookNode]) -> int:
    """The sum of what the exercises say of themselves: "about 12 minutes"."""
    return sum(
        int(minutes)
        for cell in cells
        if cell.cell_type == "markdown"
        for minutes in _EXERCISE_MINUTES.findall(cell.source)
    )


def count_words(cells: Iterable[NotebookNode]) -> int:
    """Words of prose in the markdown cells: no formulas, code or link targets."""
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    prose = re.sub(
        r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]*`|\]\([^)]*\)", " ", prose, flags=re.S
    )
    return len(re.findall(r"\w[\w’'-]*", prose))
