"""`calibcourse class`: where is my class stuck? The progress files of many, on one page.

A file is somebody else's: it is checked as the learner's own would be, and one that cannot be read
is named on the page and counts for nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._files import write_atomically
from .._page import Html, csv_table, heat, page, table, tag
from ..exercises import Exercise, all_exercises, all_predictions
from ..exercises.store import Guess, Record, UnreadableProgress, read_progress
from .class_predictions import predictions_section

HARDEST = 5
COLUMNS = (
    "student",
    "lesson",
    "exercise",
    "outcome",
    "attempts",
    "attempts_until_correct",
    "hints",
    "solution_seen",
    "first_correct",
    "mistakes",
)


@dataclass(frozen=True)
class Class:
    """What the files of a class hold.

    Attributes:
        students: records by exercise, by student, in the order of the files.
        unreadable: why a file counts for nothing, by its path.
        guesses: what each student predicted, by prediction; without names.
    """

    students: dict[str, dict[str, Record]]
    unreadable: dict[str, str]
    guesses: tuple[dict[str, Guess], ...] = ()


@dataclass(frozen=True)
class Summary:
    """How a class stands with one exercise.

    Attributes:
        exercise: which.
        tried, correct: number of students.
        attempts: median of the attempts until correct, of those who have it right; None without.
        helped: number of students who saw the solution.
        mistakes: number of students who made it, by name, the most frequent first.
    """

    exercise: Exercise
    tried: int
    correct: int
    attempts: float | None
    helped: int
    mistakes: dict[str, int]

    @property
    def stuck(self) -> int:
        """Students who tried and have not got it right."""
        return self.tried - self.correct


def class_report(
    files: Sequence[str | Path],
    html: str | None = None,
    csv: str | None = None,
    log: Callable[[str], None] = print,
) -> int:
    """Read the files of a class and write what they say.

    Args:
        files: progress files; a folder stands for the `.json` files in it.
        html: where to write the page.
        csv: where to write one row per student and exercise.
        log: told the summary, a line per exercise, and what was written.

    Returns:
        0, or 1 where a file could not be read.

    Raises:
        ValueError: there is no file at all.
        OSError: the page or the table cannot be written.
    """
    found = read_class(files)
    exercises = all_exercises()
    summaries = summarise(found.students.values(), exercises)
    for path, reason in found.unreadable.items():
        log(f"{path} cannot be read: {reason}")
    log(f"{len(found.students)} students; of those who tried, right / tried, and the top mistake")
    for summary in summaries:
        if summary.tried:
            top = next(iter(summary.mistakes), "")
            log(f"{summary.exercise.key:<28}{summary.correct:>3} / {summary.tried:<3} {top}")
    if html:
        write_atomically(html, report_page(found, summaries).encode())
        log(f"wrote {html}")
    if csv:
        write_atomically(csv, report_csv(found, exercises).encode())
        log(f"wrote {csv}")
    return 1 if found.unreadable else 0


def read_class(files: Sequence[str | Path]) -> Class:
    """The progress of each student; a student is named by the file, or by its folder.

    Args:
        files: progress files; a folder stands for the `.json` files in it.

    Raises:
        ValueError: there is no file at all.
    """
    paths = [path for name in files for path in _expanded(Path(name))]
    if not paths:
        raise ValueError(f"no progress file (.json) in {', '.join(map(str, files))}")
    students, unreadable, guesses = {}, {}, []
    for path in paths:
        try:
            path.stat()  # for `read_progress` a file that is missing is an empty one
            records, predicted = read_progress(path)
        except (UnreadableProgress, OSError) as problem:
            unreadable[str(path)] = getattr(problem, "strerror", None) or str(problem)
            continue
        students[_name(path, students)] = records
        guesses.append(predicted)
    return Class(students, unreadable, tuple(guesses))


def _expanded(path: Path) -> list[Path]:
    return sorted(path.rglob("*.json")) if path.is_dir() else [path]


def _name(path: Path, taken: Iterable[str]) -> str:
    """`ada.json` and `ada/.calibcourse/progress.json` are both Ada's."""
    parts = [part for part in path.resolve().parts[:-1] if part != ".calibcourse"]
    name = parts[-1] if path.stem == "progress" and parts else path.stem
    name = "".join(letter for letter in name if letter.isprintable())
    number, first = 1, name
    while name in taken:
        number += 1
        name = f"{first} ({number})"
    return name


def summarise(
    students: Iterable[dict[str, Record]], exercises: Iterable[Exercise]
) -> list[Summary]:
    """How a class stands with each exercise."""
    students = list(students)
    return [_summary(exercise, students) for exercise in exercises]


def _summary(exercise: Exercise, students: list[dict[str, Record]]) -> Summary:
    records = [student[exercise.key] for student in students if exercise.key in student]
    tried = [record for record in records if record.attempts]
    right = [record for record in tried if record.outcome == "correct"]
    made = Counter(name for record in tried for name, count in record.mistakes.items() if count)
    return Summary(
        exercise,
        len(tried),
        len(right),
        _median([r.attempts_until_correct for r in right if r.attempts_until_correct]),
        sum(record.solution_seen for record in records),
        dict(made.most_common(8)),
    )


def _median(values: list[int]) -> float | None:
    middle = sorted(values)[(len(values) - 1) // 2 : len(values) // 2 + 1]
    return sum(middle) / len(middle) if middle else None


def hardest(summaries: Iterable[Summary]) -> list[Summary]:
    """The exercises in which most are stuck, then those that took most attempts."""
    tried = [summary for summary in summaries if summary.stuck or (summary.attempts or 0) > 1]
    return sorted(tried, key=lambda s: (-s.stuck, -(s.attempts or 0)))[:HARDEST]


def report_csv(found: Class, exercises: Iterable[Exercise]) -> str:
    """One row per student and exercise, with the header `COLUMNS`."""
    rows = []
    exercises = list(exercises)
    for student, records in found.students.items():
        for exercise in exercises:
            record = records.get(exercise.key, Record())
            until = record.attempts_until_correct
            row = (
                student,
                exercise.lesson,
                exercise.name,
                record.outcome,
                record.attempts,
                "" if until is None else until,
                record.hints_seen,
                "yes" if record.solution_seen else "no",
                record.first_correct or "",
                "; ".join(f"{name}: {count}" for name, count in record.mistakes.items()),
            )
            rows.append(row)
    return csv_table(COLUMNS, rows)


def report_page(found: Class, summaries: list[Summary]) -> str:
    """The page: the hardest exercises with what helps, mistakes, predictions, the students."""
    n = len(found.students)
    body: list[object] = [
        tag("p", f"{n} student{'' if n == 1 else 's'}. Made from their progress files; nothing "
            "was sent anywhere."),
    ]  # fmt: skip
    if found.unreadable:
        rows = found.unreadable.items()
        body += [tag("h2", "Files that count for nothing"), table(("file", "why"), rows)]
    if hard := hardest(summaries):
        body += [tag("h2", "The hardest exercises, and what helps"), *map(_hard, hard)]
    body += [tag("h2", "Exercises and mistakes"), _heat_map(summaries)]
    body += predictions_section(all_predictions(), found.guesses)
    body += [tag("h2", "Students"), _student_table(found, summaries)]
    return page("Where is my class stuck?", body)


def _hard(summary: Summary) -> Html:
    exercise = summary.exercise
    told = {wrong.name: wrong.diagnosis for wrong in exercise.wrong}
    sentences = [
        tag("li", tag("strong", f"{name} ({_people(count)}): "), told[name])
        for name, count in summary.mistakes.items()
        if name in told
    ]
    first_hint = tag("p", tag("span", "First hint: ", class_="muted"), exercise.hints[0])
    stands = f"{summary.correct} of {summary.tried} who tried have it right."
    return Html(
        tag("h3", f"{exercise.key} · {exercise.title}")
        + tag("p", stands)
        + (tag("ul", *sentences[:3]) if sentences else "")
        + first_hint
    )


def _heat_map(summaries: list[Summary]) -> Html:
    rows = []
    for summary in summaries:
        cells = [heat(f"{name} · {n}", n / summary.tried) for name, n in summary.mistakes.items()]
        attempts = "" if summary.attempts is None else f"{summary.attempts:g}"
        rows.append(
            (
                f"{summary.exercise.key} · {summary.exercise.title}",
                summary.tried,
                summary.correct,
                attempts,
                summary.helped,
                Html(" ".join(cells)),
            )
        )
    header = ("exercise", "tried", "right", "median attempts", "saw solution", "mistakes, students")
    return table(header, rows)


def _student_table(found: Class, summaries: list[Summary]) -> Html:
    keys = [summary.exercise.key for summary in summaries]
    rows = []
    for student, records in found.students.items():
        mine = [records[key] for key in keys if key in records]
        right = sum(record.outcome == "correct" for record in mine)
        times = [record.last_attempt for record in mine if record.last_attempt]
        rows.append(
            (
                student,
                heat(f"{right} of {len(keys)}", right / max(len(keys), 1)),
                sum(record.attempts for record in mine),
                sum(record.hints_seen for record in mine),
                sum(record.solution_seen for record in mine),
                max(times, default=""),
            )
        )
    header = ("student", "right", "attempts", "hints", "solutions seen", "last attempt")
    return table(header, rows)


def _people(count: int) -> str:
    return f"{count} student{'' if count == 1 else 's'}"
