"""The page to teach a lesson from: what is read in the lesson, and what fits into a class."""

import base64
from dataclasses import replace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from calibcourse import cli
from calibcourse.course.kit import (
    CLASS_MINUTES,
    LOOK_MINUTES,
    PREDICT_MINUTES,
    Section,
    Slide,
    kit,
    plan,
    read_lesson,
)
from calibcourse.course.source import WORDS_PER_MINUTE
from calibcourse.exercises import all_exercises
from calibcourse.exercises.lesson_00 import over_confidence

PNG = base64.b64encode(b"\x89PNG not looked at").decode()
EXERCISES = {"over_confidence": over_confidence}


def claims(*texts: str) -> nbformat.NotebookNode:
    return new_output("stream", name="stdout", text="".join(f"✓ {text}\n" for text in texts))


@pytest.fixture
def lesson() -> nbformat.NotebookNode:
    figure = new_output(
        "display_data", {"image/png": PNG}, metadata={"image/png": {"alt": "Two <curves>."}}
    )
    cells = [
        new_markdown_cell("# 01 · Tiny\n\nWords before."),
        new_markdown_cell("## 1 · Rise\n\nOne two.\n\n**Predict.** Will $x$ rise?\n\nThree."),
        new_code_cell("claim(...)", outputs=[claims("it rises", "and stays")]),
        new_markdown_cell("Four.\n\n## 2 · Fall\n\nFive.\n\n### Exercise 1\n\nSix."),
        new_code_cell("ex.over_confidence.check(mine)\nx = ex.over_confidence.mine(x)"),
        new_code_cell("plots.show(fig)", outputs=[figure, claims("it falls")]),
    ]
    return new_notebook(cells=cells)


def test_a_lesson_is_read_by_its_sections(lesson):
    title, (opening, rise, fall) = read_lesson(lesson, EXERCISES)
    assert title == "01 · Tiny"
    assert [s.title for s in (opening, rise, fall)] == ["Opening", "1 · Rise", "2 · Fall"]
    assert [s.words for s in (opening, rise, fall)] == [4, 7, 4]
    question, answers = rise.predictions[0]
    assert question == "**Predict.** Will $x$ rise?"
    assert answers == ("it rises", "and stays")
    assert fall.exercises == (over_confidence,) and fall.predictions == ()
    assert [(slide.png, slide.text) for slide in fall.slides] == [(PNG, "Two <curves>.")]


def section(title: str, reading: int = 0, **more) -> Section:
    return Section(title, words=reading * WORDS_PER_MINUTE, **more)


def exercise(name: str, minutes: int, importance: int):
    return replace(over_confidence, name=name, minutes=minutes, importance=importance)


def test_minutes_are_those_of_reading_predicting_looking_and_exercises():
    asked = (("Will it?", ()), ("Or not?", ()))
    slides = (Slide(PNG, "one"),)
    made = section("A", 4, predictions=asked, exercises=(exercise("a", 11, 3),), slides=slides)
    assert made.minutes == 4 + 2 * PREDICT_MINUTES + LOOK_MINUTES + 11


def test_a_lesson_that_fits_is_taught_whole():
    sections = (section("A", 30, exercises=(exercise("a", 60, 1),)),)
    assert plan(sections).sections == sections and plan(sections).minutes == CLASS_MINUTES


def test_the_least_important_exercise_is_left_out_first_and_the_longest_among_equals():
    kept, short, long = exercise("kept", 40, 5), exercise("short", 20, 2), exercise("long", 30, 2)
    sections = (section("A", 20, exercises=(short, kept)), section("B", 10, exercises=(long,)))
    made = plan(sections)
    assert made.exercises_left == (long,)
    assert made.minutes == 20 + 20 + 40 + 10
    assert [s.exercises for s in made.sections] == [(short, kept), ()]


def test_then_prose_is_read_at_home_from_the_end_but_no_question_is():
    asked = (("Will it?", ()),)
    sections = (
        section("A", 60),
        section("B", 30, predictions=asked),
        section("C", 20),
        section("D", 30, exercises=(exercise("a", 10, 1),)),
    )
    made = plan(sections)
    assert [s.title for s in made.sections_left] == ["A", "C"]
    assert made.minutes == 30 + PREDICT_MINUTES + 40


def test_a_class_that_cannot_be_made_to_fit_says_so():
    made = plan((section("A", 200, exercises=(exercise("a", 10, 5),)),))
    assert made.minutes == 210 and made.exercises_left == ()


def test_the_page_has_questions_mistakes_and_slides(lesson, built_course):
    lesson.cells[0].source = "# 00 · Tiny\n\n{{header: none}}"
    nbformat.write(lesson, built_course / "solutions/00_tiny.ipynb")
    source = (built_course / "solutions/01_tiny.py").read_text(encoding="utf-8")
    (built_course / "solutions/00_tiny.py").write_text(source, encoding="utf-8")
    made = kit(built_course, "00")
    assert "<title>Teaching kit · 00 · Tiny</title>" in made
    assert (
        "<strong>Predict.</strong> Will <" in made
        and "<mi>x</mi>" in made
        and "<li>it rises</li>" in made
    )
    for wrong in over_confidence.wrong:
        assert f"<strong>{wrong.name}: </strong>" in made
    assert f'src="data:image/png;base64,{PNG}" alt="Two &lt;curves&gt;."' in made
    assert "<script" not in made and 'src="http' not in made


def test_the_command_writes_a_page(built_course, monkeypatch, capsys):
    monkeypatch.chdir(built_course)
    assert cli.main(["kit", "01"]) == 0
    assert "01 · Tiny" in (built_course / "artefacts/kit_01.html").read_text(encoding="utf-8")
    assert cli.main(["kit", "99"]) == 2
    assert "no lesson 99" in capsys.readouterr().err


def test_a_lesson_that_is_not_built_is_named(course):
    with pytest.raises(ValueError, match="run `calibcourse build 01`"):
        kit(course, "01")


def test_no_exercise_of_the_course_fills_a_class_alone():
    """Else `plan` could not keep one."""
    assert max(e.minutes for e in all_exercises()) < CLASS_MINUTES / 2
