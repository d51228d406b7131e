"""A newer lesson brought into a learner's copy of the older one: a three-way merge, cell by cell.

What counts is what a person writes: a cell's kind, source and attachments. Outputs and metadata,
which a run or an editor changes, make no difference.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from difflib import SequenceMatcher

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

_ALIKE = 0.6  # difflib's own limit for "close matches"
_FENCE = "````"  # a cell's text may itself hold a fence of three


@dataclass(frozen=True)
class Merge:
    """A learner's copy after an update.

    Attributes:
        notebook: the merged notebook.
        replaced: number of cells that are new or other than before.
        clashes: first line of each cell that the course and the learner both changed; the course's
            version stands in a cell of its own below the learner's.
    """

    notebook: NotebookNode
    replaced: int
    clashes: tuple[str, ...]


def merge(base: NotebookNode, ours: NotebookNode, theirs: NotebookNode) -> Merge:
    """Bring the changes from one version of a lesson to the next into a learner's copy.

    Cells that the learner left alone follow the course: replaced, added, moved, removed. Cells that
    the learner changed or added stay, and so does the absence of those deleted. Merging again
    changes nothing.

    Args:
        base: the version that the copy was made from.
        ours: the copy as it is now.
        theirs: the course's new version.

    Returns:
        The merged notebook, in the order of `theirs`; each of the learner's own cells stands after
        the cell that it stood after. No argument is changed.
    """
    base, ours, theirs = (_own_ids(deepcopy(notebook)) for notebook in (base, ours, theirs))
    to_ours, to_theirs = pairs(base.cells, ours.cells), pairs(base.cells, theirs.cells)
    from_theirs = {new: old for old, new in to_theirs.items()}
    added = {cell.id: i for i, cell in enumerate(ours.cells) if i not in to_ours.values()}
    slots, place = [[]], {}  # what stands for each of their cells, before them what is first
    for index, new in enumerate(theirs.cells):
        old = from_theirs.get(index)
        # A cell that is new may be there already, if an update was killed between its two files.
        own = added.get(new.id) if old is None else to_ours.get(old)
        if own is not None:
            place[own] = len(slots)
        slots.append(_settled(_at(base, old), _at(ours, own), new))
    clashes = tuple(_first_line(slot[0]) for slot in slots if len(slot) > 1)
    _keep_own(slots, place, ours, untouched={to_ours[i] for i in _untouched(base, ours, to_ours)})
    before = {repr(content(cell)) for cell in ours.cells}
    theirs.cells = _one_id_each([cell for slot in slots for cell in slot])
    fresh = sum(repr(content(cell)) not in before for cell in theirs.cells)
    for key, value in ours.metadata.items():
        if value != base.metadata.get(key):
            theirs.metadata[key] = value
    return Merge(theirs, fresh - len(clashes), clashes)


def _settled(
    old: NotebookNode | None, own: NotebookNode | None, new: NotebookNode
) -> list[NotebookNode]:
    """What stands for one of the course's cells: one cell, two that clash, or none."""
    if own is None:  # new in the course, or deleted by the learner
        return [new] if old is None or content(new) != content(old) else []
    if old is None:
        return [own]
    changed, moved_on = content(own) != content(old), content(new) != content(old)
    if not changed and (moved_on or own.get("outputs") == old.get("outputs")):
        return [new]
    own.id = new.id
    if own.metadata == old.metadata:  # tags and folding are the course's, until somebody unfolds
        own.metadata = new.metadata
    return [own, _clash(new)] if changed and moved_on and content(own) != content(new) else [own]


def _keep_own(
    slots: list[list[NotebookNode]], place: dict[int, int], ours: NotebookNode, untouched: set[int]
) -> None:
    """Put what the learner added, or changed before the course dropped it, where it stood."""
    at = 0
    for index, own in enumerate(ours.cells):
        at = place.get(index, at)
        if index not in place and index not in untouched:
            # A clash that has been shown before is not shown twice.
            slots[at] = [cell for cell in slots[at] if cell.id != own.id] + [own]


def _untouched(base: NotebookNode, ours: NotebookNode, to_ours: dict[int, int]) -> list[int]:
    return [i for i, j in to_ours.items() if content(base.cells[i]) == content(ours.cells[j])]


def _at(notebook: NotebookNode, index: int | None) -> NotebookNode | None:
    return None if index is None else notebook.cells[index]


def _first_line(cell: NotebookNode) -> str:
    return cell.source.strip().partition("\n")[0]


def touched(base: NotebookNode, ours: NotebookNode) -> bool:
    """Whether a copy holds anything that a person wrote: a cell added, changed, moved or deleted.

    Example:
        >>> from nbformat.v4 import new_code_cell, new_notebook
        >>> base = new_notebook(cells=[new_code_cell("1 + 1")])
        >>> touched(base, new_notebook(cells=[new_code_cell("1 + 1", execution_count=7)]))
        False
    """
    return [content(cell) for cell in base.cells] != [content(cell) for cell in ours.cells]


def content(cell: NotebookNode) -> tuple:
    """What a person writes of a cell: its kind, its source without space at the end, its files."""
    return cell.cell_type, cell.source.rstrip(), cell.get("attachments") or {}


def pairs(old: list[NotebookNode], new: list[NotebookNode]) -> dict[int, int]:
    """Which cells of two versions are the same cell: by id, else by content, else by likeness.

    Returns:
        Index in `new` by index in `old`; a cell without counterpart has no entry.
    """
    ids = {cell.id: index for index, cell in enumerate(new)}
    found = {index: ids[cell.id] for index, cell in enumerate(old) if cell.id in ids}

    def left() -> tuple[list[int], list[int]]:
        taken = set(found.values())
        rest = [index for index in range(len(new)) if index not in taken]
        return [index for index in range(len(old)) if index not in found], rest

    first, second = left()
    blocks = SequenceMatcher(
        None,
        [repr(content(old[i])) for i in first],
        [repr(content(new[j])) for j in second],
        autojunk=False,
    ).get_matching_blocks()
    for a, b, size in blocks:
        found.update(zip(first[a : a + size], second[b : b + size], strict=True))
    first, second = left()
    likeness = sorted(_likeness(old, first, new, second), reverse=True)
    for _, i, j in likeness:
        if i not in found and j not in found.values():
            found[i] = j
    return found


def _likeness(
    old: list[NotebookNode], first: list[int], new: list[NotebookNode], second: list[int]
) -> Iterator[tuple[float, int, int]]:
    for i in first:
        for j in second:
            if old[i].cell_type == new[j].cell_type:
                matcher = SequenceMatcher(None, old[i].source, new[j].source, autojunk=False)
                if matcher.quick_ratio() > _ALIKE and (ratio := matcher.ratio()) > _ALIKE:
                    yield ratio, i, j


def _clash(new: NotebookNode) -> NotebookNode:
    text = new.source
    if new.cell_type == "code":
        text = f"{_FENCE}python\n{text}\n{_FENCE}"
    note = new_markdown_cell(
        "**Update.** You changed the cell above, and the course did too. Yours is kept; this is "
        f"the course's new version. Take from it what you like, then delete this cell.\n\n{text}"
    )
    note.id = f"{new.id[:57]}-update"  # an id has at most 64 characters
    return note


def _own_ids(notebook: NotebookNode) -> NotebookNode:
    """Notebooks older than format 4.5 have no ids; cells copied in some editors repeat one."""
    for index, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{index}")
    notebook.cells = _one_id_each(notebook.cells)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _one_id_each(cells: list[NotebookNode]) -> list[NotebookNode]:
    seen = set()
    for cell in cells:
        name, number = cell.id, 1
        while cell.id in seen:
            number += 1
            cell.id = f"{name[:58]}-{number}"
        seen.add(cell.id)
    return cells
