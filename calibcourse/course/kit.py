"""`calibcourse kit NN`: one page to teach a lesson from, made of its sources.

A plan of 90 minutes, the questions to predict, the mistakes of each exercise with the sentence that
helps, and a slide per figure. Nothing in it is written by hand, so it is in step with the lesson.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

from .._page import Html, page, table, tag
from ..exercises import Exercise, all_exercises
from .build import read_notebook
from .formulas import mathml
from .source import SOLUTION, WORDS_PER_MINUTE, count_words, find_sources, notebook_path

CLASS_MINUTES = 90
PREDICT_MINUTES = 3  # to write down a guess, to compare it with a neighbour's, to see the answer
LOOK_MINUTES = 2  # to say what a figure shows

_HEADING = re.compile(r"(?m)^## (.+)$")
_CHECK = re.compile(r"(?m)^ex\.(\w+)\.check\(")
_CLAIM = "✓ "


@dataclass(frozen=True)
class Slide:
    """A figure as it is stored in the notebook.

    Attributes:
        png: in base 64.
        text: its alternative text.
        drawing: a dark page may turn it over: it holds no photographs.
    """

    png: str
    text: str
    drawing: bool = False


@dataclass(frozen=True)
class Section:
    """What stands below one heading of a lesson.

    Attributes:
        title: of it, in Markdown.
        words: of prose.
        predictions: questions, in Markdown, each with what the lesson claims between it and the
            next question or heading.
        exercises: that are checked there.
        slides: its figures.
    """

    title: str
    words: int = 0
    predictions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    exercises: tuple[Exercise, ...] = ()
    slides: tuple[Slide, ...] = ()

    @property
    def reading(self) -> int:
        """Minutes to read."""
        return math.ceil(self.words / WORDS_PER_MINUTE)

    @property
    def minutes(self) -> int:
        """Minutes in class."""
        work = sum(exercise.minutes for exercise in self.exercises)
        look, predict = LOOK_MINUTES * len(self.slides), PREDICT_MINUTES * len(self.predictions)
        return self.reading + predict + look + work


@dataclass(frozen=True)
class Plan:
    """A class of `CLASS_MINUTES`.

    Attributes:
        sections: what is done in class, in order.
        exercises_left, sections_left: for home.
    """

    sections: tuple[Section, ...]
    exercises_left: tuple[Exercise, ...] = field(default=())
    sections_left: tuple[Section, ...] = field(default=())

    @property
    def minutes(self) -> int:
        """Of all sections."""
        return sum(section.minutes for section in self.sections)

    @property
    def by_importance(self) -> list[Exercise]:
        """The exercises in class, the one to leave out first at the front."""
        here = [exercise for section in self.sections for exercise in section.exercises]
        return sorted(here, key=lambda exercise: (exercise.importance, -exercise.minutes))


def kit(root: Path, number: str) -> str:
    """The page of one lesson: HTML that needs nothing else.

    Args:
        root: the folder that holds `lessons/` and `solutions/`.
        number: of the lesson, such as "01".

    Raises:
        ValueError: there is no such lesson, or its notebook is not built.
    """
    (source,) = find_sources(root, [number])
    path = notebook_path(source, SOLUTION)
    if not path.exists():
        raise ValueError(f"{path} is missing: run `calibcourse build {number}`")
    exercises = {
        exercise.name: exercise for exercise in all_exercises() if exercise.lesson == number
    }
    title, sections = read_lesson(read_notebook(path), exercises)
    return page(f"Teaching kit · {title}", _body(sections, plan(sections)))


def read_lesson(
    notebook: NotebookNode, exercises: dict[str, Exercise]
) -> tuple[str, tuple[Section, ...]]:
    """The title of a lesson and its sections, the first of which is what stands before any heading.

    Args:
        notebook: with solutions and outputs.
        exercises: of the lesson, by name.
    """
    title = notebook.cells[0].source.partition("\n")[0].removeprefix("# ")
    sections = [Section("Opening")]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            before, *rest = _HEADING.split(cell.source)
            sections[-1] = _with_prose(sections[-1], before)
            for heading, text in zip(rest[::2], rest[1::2], strict=True):
                sections.append(_with_prose(Section(heading), text))
        else:
            sections[-1] = _with_code(sections[-1], cell, exercises)
    return title, tuple(sections)


def _with_prose(section: Section, text: str) -> Section:
    asked = tuple((part, ()) for part in re.split(r"\n\s*\n", text) if "**Predict" in part)
    words = count_words([NotebookNode(cell_type="markdown", source=text)])
    return replace(section, words=section.words + words, predictions=section.predictions + asked)


def _with_code(section: Section, cell: NotebookNode, exercises: dict[str, Exercise]) -> Section:
    checked = tuple(exercises[name] for name in _CHECK.findall(cell.source) if name in exercises)
    slides, claims = [], []
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            known = output.metadata.get("image/png", {})
            png = "".join(output.data["image/png"].split())
            slides.append(Slide(png, known.get("alt", ""), known.get("drawing") is True))
        printed = output.get("text", "").splitlines()
        claims += [line.removeprefix(_CLAIM) for line in printed if line.startswith(_CLAIM)]
    predictions = section.predictions
    if predictions and claims:
        question, answers = predictions[-1]
        predictions = (*predictions[:-1], (question, (*answers, *claims)))
    return replace(
        section,
        predictions=predictions,
        exercises=section.exercises + checked,
        slides=section.slides + tuple(slides),
    )


def plan(sections: Sequence[Section]) -> Plan:
    """What of a lesson fits into a class.

    Left for home are first the exercises, the least important and among those the longest; then the
    sections with nothing but prose, the last first.
    """
    made = Plan(tuple(sections))
    while made.minutes > CLASS_MINUTES:
        here = made.by_importance
        prose = [s for s in made.sections if not (s.exercises or s.predictions)]
        if len(here) > 1:
            made = _without_exercise(made, here[0])
        elif prose:
            kept = tuple(section for section in made.sections if section is not prose[-1])
            made = replace(made, sections=kept, sections_left=(prose[-1], *made.sections_left))
        else:
            break
    return made


def _without_exercise(made: Plan, left: Exercise) -> Plan:
    sections = tuple(
        replace(s, exercises=tuple(exercise for exercise in s.exercises if exercise is not left))
        for s in made.sections
    )
    return replace(made, sections=sections, exercises_left=(*made.exercises_left, left))


def _body(sections: Sequence[Section], made: Plan) -> list[object]:
    exercises = [exercise for section in sections for exercise in section.exercises]
    body: list[object] = [
        tag("p", "Made from the lesson's sources by ", tag("code", "calibcourse kit"), "."),
        tag("h2", f"A class of {CLASS_MINUTES} minutes"),
        *_plan(made),
    ]
    if any(section.predictions for section in sections):
        body += [tag("h2", "Questions to predict"), *map(_questions, sections)]
    if exercises:
        body += [tag("h2", "Exercises, their mistakes, and what helps"), *map(_exercise, exercises)]
    return body + [_slide(section, slide) for section in sections for slide in section.slides]


def _plan(made: Plan) -> list[Html]:
    ends = list(accumulate(section.minutes for section in made.sections))
    rows = [
        (f"{end - section.minutes}–{end}", _inline(section.title), _activities(section))
        for section, end in zip(made.sections, ends, strict=True)
        if section.minutes
    ]
    spare = CLASS_MINUTES - made.minutes
    if spare > 0:
        rows.append((f"{made.minutes}–{CLASS_MINUTES}", "Questions, and what took longer", ""))
    parts = [table(("minute", "section", "what"), rows)]
    if spare < 0:
        parts.append(
            tag("p", f"It takes {-spare} minutes more than a class: let it be read before.")
        )
    left = [f"Exercise “{e.title}” ({e.minutes} min)" for e in made.exercises_left]
    left += [f"To read: {s.title} ({s.reading} min)" for s in made.sections_left]
    if left:
        items = (tag("li", _inline(text)) for text in left)
        parts += [tag("h3", "Leave out, for home"), tag("ul", *items)]
    elif len(made.by_importance) > 1:
        first = made.by_importance[0]
        parts.append(
            tag("p", f"Short of time? Leave out “{first.title}” first ({first.minutes} min, "
                f"importance {first.importance} of 5).")
        )  # fmt: skip
    return parts


def _activities(section: Section) -> str:
    parts = [f"read {section.reading} min"] if section.reading else []
    if n := len(section.predictions):
        parts.append(f"predict {PREDICT_MINUTES * n} min" + (f" ({n} questions)" if n > 1 else ""))
    if n := len(section.slides):
        parts.append(f"look {LOOK_MINUTES * n} min" + (f" ({n} figures)" if n > 1 else ""))
    parts += [f"exercise “{e.title}” {e.minutes} min" for e in section.exercises]
    return " · ".join(parts)


def _questions(section: Section) -> Html:
    parts = []
    for question, claims in section.predictions:
        parts.append(Html(_MARKDOWN.render(question)))
        if claims:
            answers = tag("ul", *(tag("li", claim) for claim in claims))
            parts.append(tag("details", tag("summary", "What the lesson finds"), answers))
    return Html(tag("h3", _inline(section.title)) + "".join(parts) if parts else "")


def _exercise(exercise: Exercise) -> Html:
    rated = (
        f"About {exercise.minutes} minutes · difficulty {exercise.difficulty} of 5 · "
        f"importance {exercise.importance} of 5"
    )
    mistakes = (
        tag("li", tag("strong", f"{wrong.name}: "), _code(wrong.diagnosis))
        for wrong in exercise.wrong
    )
    hints = (tag("li", _code(hint)) for hint in exercise.hints)
    return Html(
        tag("h3", exercise.title)
        + tag("p", rated, class_="muted")
        + tag("ul", *mistakes)
        + tag("details", tag("summary", "Its hints, in their order"), tag("ol", *hints))
    )


def _slide(section: Section, slide: Slide) -> Html:
    look = "drawing" if slide.drawing else "photographs"
    source = f"data:image/png;base64,{slide.png}"
    picture = tag("img", src=source, alt=slide.text, class_=f"calibcourse-{look}")
    return tag("section", tag("h2", _inline(section.title)), picture, tag("p", slide.text),
               class_="slide")  # fmt: skip


_MARKDOWN = MarkdownIt().use(
    dollarmath_plugin,
    renderer=lambda tex, options: mathml(tex, display=options["display_mode"]),
)
_PLAIN = MarkdownIt("zero").enable("backticks")  # texts of exercises: only code is marked


def _inline(text: str) -> Html:
    return Html(_MARKDOWN.renderInline(text))


def _code(text: str) -> Html:
    return Html(_PLAIN.renderInline(text))
