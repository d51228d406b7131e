"""From source to notebooks: markers, placeholders, ids, execution, and what stays in step."""

import json
from pathlib import Path

import nbformat
import pytest

from calibcourse.course import build as build_module
from calibcourse.course import rules
from calibcourse.course.build import (
    WIDGET_VIEW,
    build,
    check,
    kernel_environment,
    notebook_text,
    read_notebook,
    write_all,
)
from calibcourse.course.source import (
    FOLDED,
    LESSON,
    SOLUTION,
    BuildError,
    Measured,
    check_markers,
    count_words,
    find_sources,
    render,
)

SOURCE = "solutions/01_tiny.py"
LEARNERS = "lessons/01_tiny.ipynb"
SOLVED = "solutions/01_tiny.ipynb"


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# ---------------------------------------------------------------------------------- markers


@pytest.mark.parametrize(
    "line",
    [
        "## BEGIN SOLUTION",
        "#### BEGIN SOLUTION",
        "###BEGIN SOLUTION",
        "### Begin solution",
        "#BEGIN SOLUTIONS",
        "### BEGIN SOLTUION",
        "### BEGN SOLUTION",
        "### BEGIN  SOLUTION",
        "### BEGIN_SOLUTION",
        "### END SOLUTION ###",
        "### END OF SOLUTION",
        "### SOLUTION END",
        "### START SOLUTION",
        "# end of answer",
        "# ### BEGIN SOLUTION",
        "x = 1  ### BEGIN SOLUTION",
    ],
)
def test_what_resembles_a_marker_stops_the_build_with_file_and_line(line):
    with pytest.raises(BuildError, match=r"01_x\.py:2: .*resembles"):
        check_markers(f"# %%\n{line}\n", "01_x.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# %%\n### END SOLUTION\n", r"x\.py:2: .*END SOLUTION without"),
        ("# %%\n### BEGIN SOLUTION\nx = 1\n", r"x\.py:2: .*not closed"),
        ("### BEGIN SOLUTION\n# %%\n### END SOLUTION\n", r"x\.py:1: .*not closed in its cell"),
        (
            "### BEGIN SOLUTION\nx = 1\n### BEGIN SOLUTION\n### END SOLUTION\n### END SOLUTION\n",
            r"x\.py:3: .*inside the block begun in line 1",
        ),
    ],
)
def test_unbalanced_and_nested_markers_stop_the_build(text, message):
    with pytest.raises(BuildError, match=message):
        check_markers(text, "x.py")


def test_prose_may_speak_of_solutions():
    check_markers(
        "# The solution begins here, and at the end of it stands a beginning.\n"
        "# ### Solutions\n"
        "end = solution  # the solution of the equation\n",
        "x.py",
    )


def test_a_marker_outside_code_cells_stops_the_build(course):
    quoted = '# %% [markdown]\n"""\n### BEGIN SOLUTION\nsecret\n### END SOLUTION\n"""\n'
    source = course / SOURCE
    source.write_text(source.read_text(encoding="utf-8") + quoted, encoding="utf-8")
    with pytest.raises(BuildError, match="where no code cell is"):
        render(source, LESSON)


# ---------------------------------------------------------------------------------- rendering


def test_exercises_are_blank_for_the_learner_and_whole_with_solutions(course):
    blank, solved = (render(course / SOURCE, kind).cells[-1].source for kind in (LESSON, SOLUTION))
    assert blank == (
        'def answer(x):\n    """x -> x + 1."""\n    if x is None:\n'
        "        ...  # your code here\n    ...  # your code here\n\n\nanswer(1), os.getpid()"
    )
    assert solved == (
        'def answer(x):\n    """x -> x + 1."""\n    if x is None:\n'
        "        x = 0\n    y = x + 1\n    return y\n\n\nanswer(1), os.getpid()"
    )


def test_exercises_are_tagged_and_drawings_folded(course):
    cells = (
        '\n\n# %%\nplots.show(fig, alt="x")\n'
        '\n# %% tags=["drawing", "nbval-ignore-output"]\nx = 1\nplots.show(x, alt="x")\n'
        '\n# %%\nx = 1\nplots.show(x, alt="x")\n'
    )
    change(course / SOURCE, "answer(1), os.getpid()  # fmt: skip", "answer(1)" + cells)
    for kind in (LESSON, SOLUTION):
        shown = [
            (cell.metadata.get("tags"), cell.metadata.get("jupyter"))
            for cell in render(course / SOURCE, kind).cells
            if cell.cell_type == "code"
        ]
        assert shown == [
            (None, FOLDED),  # the bootstrap
            (None, None),
            (None, None),
            (["nbval-ignore-output", "exercise"], None),
            (None, FOLDED),
            (["nbval-ignore-output"], FOLDED),
            (None, None),
        ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# {{header: none}}\n", ""),
        ("# {{header: none}}\n", "# {{header: none}}\n# {{header: none}}\n"),
        ("# {{header: none}}\n", "# {{heading: none}}\n"),
        ("# {{bootstrap}}\n", "import calibcourse\n"),
        ("# {{bootstrap}}\n", "# {{bootstrap}}\n\n# %%\n# {{bootstrap}}\n"),
        ("# # 01 · Tiny", "# Tiny"),
        ("import os\n", "# {{bootstap}}\nimport os\n"),
    ],
)
def test_missing_repeated_and_unknown_placeholders_stop_the_build(course, old, new):
    change(course / SOURCE, old, new)
    with pytest.raises(BuildError, match=r"^01_tiny\.py: "):
        render(course / SOURCE, LESSON)


def test_ids_are_shared_by_both_notebooks_and_an_edit_changes_one(course):
    source = course / SOURCE
    before = [cell.id for cell in render(source, LESSON).cells]
    assert before == [cell.id for cell in render(source, SOLUTION).cells]
    assert len(set(before)) == len(before)
    change(source, "print(device)", "print(device.upper())")
    after = [cell.id for cell in render(source, LESSON).cells]
    assert [old == new for old, new in zip(before, after, strict=True)].count(False) == 1


def test_equal_cells_have_different_ids(course):
    with (course / SOURCE).open("a", encoding="utf-8") as file:
        file.write("\n# %%\nanswer(2)\n\n# %%\nanswer(2)\n")
    ids, again = ([cell.id for cell in render(course / SOURCE, LESSON).cells] for _ in range(2))
    # Twice, because nbformat gives a random id to a cell that repeats one.
    assert ids == again and len(set(ids)) == len(ids)


def test_the_header_shows_what_was_measured(course):
    change(course / SOURCE, "Five words stand here.", "word " * 300)
    first = render(course / SOURCE, LESSON, measured=Measured(25, 0.8, 2)).cells[0].source
    # 300 words and the title's two, at 150 a minute, rounded up
    assert first.splitlines()[2] == (
        "3 min to read · 25 s to run on 2 CPU cores · 0.8 GB of memory · prerequisites: none"
    )


def test_the_header_sums_the_minutes_of_the_exercises(course):
    told = "*Difficulty 2 of 5 · importance 4 of 5 · about {} minutes.*"
    text = "\n#\n# ".join(["Five words stand here.", told.format(12), told.format(7)])
    change(course / SOURCE, "Five words stand here.", text)
    assert "1 min to read · 19 min of exercises · prereq" in (
        render(course / SOURCE, LESSON).cells[0].source
    )


def test_the_map_lists_every_lesson_with_its_minutes(course):
    change(course / SOURCE, "Five words stand here.", "Five words stand here.\n#\n# {{map}}")
    source = (course / SOURCE).read_text(encoding="utf-8")
    (course / "solutions/02_more.py").write_text(source.replace("{{map}}", "and here."))
    rendered = render(course / SOURCE, LESSON).cells[0].source
    title = source.splitlines()[1].removeprefix("# # ")
    for name in ("01_tiny", "02_more"):
        assert f"| [{title}]({name}.ipynb) | 1 | 0 |\n" in rendered
    assert rendered.count("| in all | 2 | 0 |") == 1


def test_only_prose_counts_as_words():
    text = "Two words $a + b$, `code here` and\n\n$$x\ny$$\n[a link](https://x.org/some/where)."
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("no words")]
    assert count_words(cells) == 5  # Two words and a link


def test_stored_figures_stay_while_a_new_measurement_is_near():
    stored = Measured(20, 0.8, 2)
    assert Measured(25, 0.9, 2).steadied(stored) == stored
    assert Measured(15, 0.7, 2).steadied(stored) == stored
    assert Measured(30, 0.9, 2).steadied(stored) == Measured(30, 0.8, 2)
    assert Measured(20, 1.0, 2).steadied(stored) == Measured(20, 1.0, 2)
    assert Measured(25, 0.9, 4).steadied(stored) == Measured(25, 0.9, 4)


def test_unknown_lessons_are_named(course):
    with pytest.raises(BuildError, match="no lesson 07: solutions/ has sources for 01"):
        find_sources(course, ["07"])
    assert find_sources(course, ["01", "01"]) == [course / SOURCE]
    (course / "solutions/01_twin.py").write_text("")
    with pytest.raises(BuildError, match="same number"):
        find_sources(course)


# ---------------------------------------------------------------------------------- execution


def test_a_build_stores_outputs_and_nothing_of_this_run(built_course):
    for name in (LEARNERS, SOLVED):
        notebook = read_notebook(built_course / name)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
        assert code[0].outputs == []  # the bootstrap cell is silent where calibcourse is there
        assert [output.text for output in code[1].outputs] == ["cpu\n"]  # and no progress bar
        (explorer,) = code[2].outputs
        assert explorer.data == {"text/plain": "Explorer of nothing"}
        assert WIDGET_VIEW not in (built_course / name).read_text()
        assert "version" not in notebook.metadata.language_info
        assert set(notebook.metadata) == {"kernelspec", "language_info", "calibcourse"}
        assert all(set(cell.metadata) <= {"tags", "jupyter"} for cell in notebook.cells)
        folded = [cell for cell in notebook.cells if "jupyter" in cell.metadata]
        assert [cell.source for cell in folded] == [code[0].source]  # nothing but the bootstrap
    assert "None" in code_output(built_course / LEARNERS)
    assert "(2, " in code_output(built_course / SOLVED)


def code_output(path: Path) -> str:
    return read_notebook(path).cells[-1].outputs[0].data["text/plain"]


@pytest.mark.slow
def test_a_second_build_changes_no_byte(built_course, snapshot, monkeypatch, tmp_path):
    change(built_course / SOURCE, "answer(1), os.getpid()", "answer(1)")
    progress = tmp_path / "learners.json"
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(progress))
    lines = []
    build(built_course, ["01"], log=lines.append)
    assert [line.partition(":")[0] for line in lines] == [LEARNERS, SOLVED]
    first = snapshot(built_course)
    build(built_course, jobs=2, log=lines.append)
    assert snapshot(built_course) == first
    assert not progress.exists()


def test_kernels_at_a_time_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "available_cores", lambda: 8)
    threads = [kernel_environment(tmp_path, n).get("OMP_NUM_THREADS") for n in (1, 2, 4, 16)]
    assert threads == [None, "4", "2", "1"]


def test_a_failing_cell_is_named_and_leaves_the_old_notebooks(built_course, snapshot):
    # fails only with the solution, after the learner's copy has run
    change(built_course / SOURCE, "    y = x + 1\n", "    y = x + 1 / 0\n")
    before = snapshot(built_course)
    with pytest.raises(
        BuildError,
        match=r"solutions/01_tiny\.ipynb, cell 4 .*def answer.* raised ZeroDivisionError: division",
    ):
        build(built_course, log=lambda line: None)
    assert snapshot(built_course) == before


def test_a_kernel_that_dies_is_an_error_with_its_cell(course):
    change(course / SOURCE, "print(device)", "os._exit(1)")
    with pytest.raises(BuildError, match=r"lessons/01_tiny\.ipynb, cell 2: "):
        build(course, log=lambda line: None)
    assert not (course / LEARNERS).exists()


def test_the_peak_of_memory_is_measured(course):
    change(course / SOURCE, "print(device)", 'print(len(b"x" * 500_000_000))')
    build(course, log=lambda line: None)
    measured = read_notebook(course / LEARNERS).metadata.calibcourse
    # the text itself, and at most 0.4 GB for the interpreter with ipywidgets
    assert 0.5 <= measured.peak_memory_gb <= 0.9


# ---------------------------------------------------------------------------------- in step


def test_a_built_course_is_in_step(built_course):
    assert check(built_course) == check(built_course, ["01"]) == []


def _rewrite(path: Path, edit) -> None:
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    path.write_text(notebook_text(notebook), encoding="utf-8")


@pytest.mark.parametrize(
    "edit",
    [
        lambda nb: nb.cells[2].update(source=nb.cells[2].source + "\n"),
        lambda nb: nb.cells[0].update(source=nb.cells[0].source.replace("5 s", "10 s")),
        lambda nb: nb.cells[2].update(id="01-00000000"),
        lambda nb: nb.cells[2].metadata.update(tags=["nbval-ignore-output"]),
        lambda nb: nb.cells.reverse(),
        lambda nb: nb.cells.pop(),
        lambda nb: nb.metadata.pop("calibcourse"),
        lambda nb: nb.metadata.calibcourse.update(seconds="soon"),
        lambda nb: nb.metadata.kernelspec.update(display_name="my kernel"),
    ],
)
def test_every_edit_of_a_notebook_is_found(built_course, edit):
    _rewrite(built_course / LEARNERS, edit)
    (difference,) = check(built_course)
    assert difference.startswith(LEARNERS) and "calibcourse build 01" in difference


def test_a_notebook_that_an_editor_opened_and_saved_is_in_step(built_course):
    """What JupyterLab writes for having been looked at: its kernel's version of Python."""
    _rewrite(
        built_course / LEARNERS,
        lambda nb: nb.metadata.language_info.update(version="3.13.1", pygments_lexer="ipython"),
    )
    assert check(built_course) == []
    assert rules.normalised(read_notebook(built_course / LEARNERS)) == []


def test_an_edited_source_is_found_in_both_notebooks(built_course):
    change(built_course / SOURCE, "Five words", "Five other words")
    assert [line.partition(",")[0] for line in check(built_course)] == [LEARNERS, SOLVED]


def test_another_spelling_of_the_same_notebook_is_found(built_course):
    path = built_course / LEARNERS
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    assert ["is not written as" in line for line in check(built_course)] == [True]


def test_missing_orphaned_and_broken_notebooks_are_found(built_course):
    (built_course / LEARNERS).rename(built_course / "lessons/02_gone.ipynb")
    missing, orphan = check(built_course)
    assert "01_tiny.ipynb is missing" in missing and "02_gone.ipynb has no source" in orphan
    (built_course / SOLVED).write_text("{")
    with pytest.raises(BuildError, match="not a readable notebook"):
        check(built_course)


# ---------------------------------------------------------------------------------- writing


def test_files_are_written_all_or_none(tmp_path, snapshot):
    old, gone, blocked = tmp_path / "old", tmp_path / "gone", tmp_path / "old/below a file"
    old.write_text("1")
    gone.write_text("2")
    before = snapshot(tmp_path)
    with pytest.raises(OSError, match="below a file"):
        write_all({old: "new", tmp_path / "fresh": "new", gone: None, blocked: "new"})
    assert snapshot(tmp_path) == before
    assert write_all({old: "1", gone: None, tmp_path / "fresh": "3"}) == [gone, tmp_path / "fresh"]
    assert snapshot(tmp_path) == {"old": b"1", "fresh": b"3"}


# --------------------------------------------------------------------------------- references


def test_a_solution_is_the_reference_of_its_exercise(course):
    source = course / SOURCE
    text = source.read_text(encoding="utf-8")
    inner = "    y = x + 1\n    return y\n"
    assert inner in text
    source.write_text(text.replace(inner, "    # {{solution: 03/stable_rate}}\n"), encoding="utf-8")
    solved, blank = (
        "\n".join(cell.source for cell in render(source, kind).cells) for kind in (SOLUTION, LESSON)
    )
    assert "\n    return 2 / eigenvalues.max()\n" in solved and "{{solution" not in solved
    assert "eigenvalues" not in blank and "{{solution" not in blank


@pytest.mark.parametrize("name", ["99/stable_rate", "03/stability"])
def test_a_solution_of_no_exercise_stops_the_build(course, name):
    change(course / SOURCE, "    y = x + 1\n", f"    # {{{{solution: {name}}}}}\n")
    with pytest.raises(BuildError, match=f"no exercise {name} has a solution"):
        render(course / SOURCE, SOLUTION)
