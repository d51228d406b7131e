"""A three-way merge of notebooks: what the course changed arrives, what the learner wrote stays."""

from hypothesis import given
from hypothesis import strategies as st
from nbformat import validate
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from calibcourse.course.merge import merge, pairs, touched

STUB = 'def my_ece(logits, target):\n    """Logits -> ECE."""\n    ...  # your code here\n'
ANSWER = 'def my_ece(logits, target):\n    """Logits -> ECE."""\n    return 0.5\n'
NEW_STUB = (
    'def my_ece(logits, target):\n    """Logits (N, K) -> ECE."""\n    ...  # your code here\n'
)


def notebook(*sources: str, ids: str | None = None):
    """Code cells; a source that opens with # is prose. Ids are `ids`, else the sources' own."""
    cells = []
    for number, source in enumerate(sources):
        cell = (new_markdown_cell if source.startswith("#") else new_code_cell)(source)
        letters = "".join(c for c in source if c.isalnum())[:12] or "-"
        repeated = sources[:number].count(source)
        cell.id = f"{letters}-{repeated}" if ids is None else f"{ids}-{number}"
        cells.append(cell)
    return new_notebook(cells=cells)


def sources(merged) -> list[str]:
    validate(merged.notebook)
    return [cell.source for cell in merged.notebook.cells]


def merged_sources(base, ours, theirs) -> list[str]:
    return sources(merge(base, ours, theirs))


def test_an_untouched_copy_becomes_the_new_version():
    base, theirs = notebook("# one", "a = 1", "b = 2"), notebook("# one!", "a = 1", "c = 3", "d")
    done = merge(base, base, theirs)
    assert sources(done) == ["# one!", "a = 1", "c = 3", "d"]
    assert (done.replaced, done.clashes) == (3, ())


def test_a_new_look_of_a_cell_arrives_unless_the_learner_chose_one():
    base, theirs = notebook(STUB, "draw()", "plot()"), notebook(STUB, "draw()", "plot()")
    ours = notebook(ANSWER, "draw()", "plot()")
    ours.cells[0].id = base.cells[0].id
    ours.cells[1].outputs = [new_output("stream", text="it ran")]
    ours.cells[2].metadata["jupyter"] = {"source_hidden": False}  # unfolded
    ours.cells[2].outputs = [new_output("stream", text="it ran")]
    theirs.cells[0].metadata["tags"] = ["exercise"]
    for cell in theirs.cells[1:]:
        cell.metadata["jupyter"] = {"source_hidden": True}
    merged = merge(base, ours, theirs)
    assert sources(merged) == [ANSWER, "draw()", "plot()"] and merged.clashes == ()
    answer, drawing, unfolded = merged.notebook.cells
    assert answer.metadata == {"tags": ["exercise"]}
    assert drawing.metadata == {"jupyter": {"source_hidden": True}} and drawing.outputs
    assert unfolded.metadata == {"jupyter": {"source_hidden": False}}


def test_answers_and_own_cells_stay_where_they_stood():
    base = notebook("# Title", STUB, "# End")
    ours = notebook("# mine, first", "# Title", ANSWER, "my_own = 1", "# End", "print('last')")
    ours.cells[2].id = base.cells[1].id  # as JupyterLab keeps it
    theirs = notebook("# Title, reworded", "new = 0", STUB, "# End")
    theirs.cells[0].id = base.cells[0].id
    assert merged_sources(base, ours, theirs) == [
        "# mine, first",
        "# Title, reworded",
        "new = 0",
        ANSWER,
        "my_own = 1",
        "# End",
        "print('last')",
    ]


def test_what_both_changed_is_shown_one_below_the_other_once():
    base, ours, theirs = notebook(STUB), notebook(ANSWER), notebook(NEW_STUB, ids="new")
    ours.cells[0].id = base.cells[0].id
    first = merge(base, ours, theirs)
    kept, note = first.notebook.cells
    assert kept.source == ANSWER and note.cell_type == "markdown" and NEW_STUB in note.source
    assert first.clashes == ("def my_ece(logits, target):",) and first.replaced == 0
    # Killed before the new base was written, or run again: nothing more happens.
    for again in (merge(base, first.notebook, theirs), merge(theirs, first.notebook, theirs)):
        assert [cell.source for cell in again.notebook.cells] == [ANSWER, note.source]


def test_the_same_change_on_both_sides_is_no_clash():
    base, ours = notebook("a = 1", ids="x"), notebook("a = 2", ids="x")
    done = merge(base, ours, notebook("a = 2", ids="y"))
    assert sources(done) == ["a = 2"] and not done.clashes


def test_deleted_cells_stay_away_until_the_course_changes_them():
    base, ours = notebook("# long text", "a = 1", "b = 2"), notebook("a = 1")
    theirs = notebook("# long text", "a = 1", "b = 2")
    assert merged_sources(base, ours, theirs) == ["a = 1"]
    theirs.cells[2].source = "b = 22"
    assert merged_sources(base, ours, theirs) == ["a = 1", "b = 22"]


def test_cells_that_the_course_drops_go_unless_they_hold_work():
    base = notebook("a = 1", "b = 2", "c = 3")
    ours = notebook("a = 1", "b = 2", "c = 3")
    ours.cells[1].source = "b = 'mine'"
    assert merged_sources(base, ours, notebook("d = 4")) == ["b = 'mine'", "d = 4"]


def test_outputs_of_a_run_stay_and_outputs_of_the_course_follow():
    def with_text(text):
        made = notebook("print(1)")
        made.cells[0].outputs = [new_output("stream", name="stdout", text=text)]
        return made

    def text(base, ours, theirs):
        done = merge(with_text(base), with_text(ours), with_text(theirs))
        return done.notebook.cells[0].outputs[0].text

    assert text("old", "mine", "new") == "mine"
    assert text("old", "old", "new") == "new"


def test_a_run_and_an_editors_metadata_are_no_work():
    base, ours = notebook("a = 1", "# b"), notebook("a = 1", "# b\n")
    ours.cells[0].execution_count = 5
    ours.cells[0].metadata["scrolled"] = True
    ours.metadata["language_info"] = {"version": "3.13"}
    assert not touched(base, ours)
    assert touched(base, notebook("a = 1")) and touched(base, notebook("# b", "a = 1"))
    ours.cells[1].cell_type = "raw"
    assert touched(base, ours)


def test_cells_are_found_again_without_their_ids():
    old = notebook("# Title", STUB, "x = 1", "# The end of it all", ids="old")
    new = notebook("# Title", "inserted()", NEW_STUB, "x = 1", "# The very end of it all", ids="w")
    assert pairs(old.cells, new.cells) == {0: 0, 1: 2, 2: 3, 3: 4}


def test_copies_of_older_formats_and_with_repeated_ids_are_read():
    base, ours = notebook("a = 1", "b = 2"), notebook("a = 1", "b = 2", "b = 2")
    ours.cells[2].id = ours.cells[1].id
    assert merged_sources(base, ours, base) == ["a = 1", "b = 2", "b = 2"]
    for cell in ours.cells:
        del cell["id"]
    ours.nbformat_minor = 4
    assert merged_sources(base, ours, base) == ["a = 1", "b = 2", "b = 2"]


def test_a_kernel_chosen_by_the_learner_stays():
    base, ours, theirs = notebook("a"), notebook("a"), notebook("a")
    base.metadata.update(kernelspec={"name": "python3"}, calibcourse={"seconds": 5})
    ours.metadata.update(kernelspec={"name": "mine"}, calibcourse={"seconds": 5})
    theirs.metadata.update(kernelspec={"name": "python3"}, calibcourse={"seconds": 10})
    done = merge(base, ours, theirs).notebook.metadata
    assert done == {"kernelspec": {"name": "mine"}, "calibcourse": {"seconds": 10}}


LINES = st.lists(st.sampled_from(["# a", "# b", "c = 1", "c = 2", "d()", "e", ""]), max_size=6)


@given(LINES, LINES, LINES, st.booleans())
def test_nothing_written_is_lost_and_a_second_merge_changes_nothing(old, own, new, same_ids):
    base, ours, theirs = (
        notebook(*lines, ids=name)
        for lines, name in ((old, "old"), (own, "old" if same_ids else "own"), (new, "new"))
    )
    done = merge(base, ours, theirs)
    got = sources(done)
    assert set(own) - set(old) <= set(got)  # all that the learner wrote
    assert set(new) - set(old) <= set("\n".join(got).split("\n"))  # all that is new, in notes too
    again = merge(theirs, done.notebook, theirs)
    assert sources(again) == got and not again.clashes
    assert merged_sources(base, ours, base) == own or not same_ids
    assert merged_sources(base, base, theirs) == new
