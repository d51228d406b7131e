"""The learner's progress: one small JSON file on their own disk, and nothing else.

The file is `$CALIBCOURSE_PROGRESS` if that is set, else `.calibcourse/progress.json` in the course
folder. It survives updates of the course (unknown exercises and predictions stay), several
notebooks may write at once, and a damaged file is set aside, never trusted. Setting the variable to
the null device keeps no progress at all.
"""

import ast
import hashlib
import json
import os
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from .._files import read_json, write_json
from ._guess import FIELDS, NEVER, Guess, Value, possible
from ._place import word

# 1 had no mistakes, answers and attempts_until_correct, 2 no predictions; both are still read.
VERSION = 3
OUTCOMES = ("not attempted", "your code raised", "incorrect", "correct")  # from worst to best
_MAX_BYTES = 1_000_000
_MAX_ANSWERS = 500  # digests kept of one exercise, the latest
_MAX_MISTAKES, _MAX_NAME = 100, 120  # names of one exercise, characters of one
_MAX_NUMBER = 10**9 - 1
_LOCK_SECONDS = 5.0
_SINCE_2 = {"mistakes", "answers", "attempts_until_correct"}
_DIGEST = re.compile("[0-9a-f]{16}")
_NOT_WRITABLE = (
    "Progress not saved: its file cannot be written. Your result stands; to save, set "
    "CALIBCOURSE_PROGRESS to a file that can."
)


class UnreadableProgress(Exception):
    """The progress file is damaged, or no progress file at all; the message says how."""


class NewerProgress(UnreadableProgress):
    """The progress file was written by a newer version of the course."""


@dataclass(frozen=True)
class Record:
    """What is remembered of one exercise.

    Attributes:
        outcome: the best so far, one of `OUTCOMES`.
        attempts: different answers checked; an untouched stub does not count, nor does an answer
            that was checked before.
        first_attempt, last_attempt, first_correct: UTC, ISO 8601, or None.
        hints_seen: the number of different hints shown.
        solution_seen: whether the solution was shown.
        mistakes: number of different answers by the name of the mistake in them.
        answers: digests of the different answers, in the order of their first check.
        attempts_until_correct: attempts up to the first correct one, or None.
    """

    outcome: str = OUTCOMES[0]
    attempts: int = 0
    first_attempt: str | None = None
    last_attempt: str | None = None
    first_correct: str | None = None
    hints_seen: int = 0
    solution_seen: bool = False
    mistakes: dict[str, int] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    attempts_until_correct: int | None = None

    def attempted(
        self, outcome: str, now: str, mistake: str | None = None, answer: str | None = None
    ) -> "Record":
        """The record after one more check, which is no attempt if the answer was checked before.

        Args:
            outcome: one of `OUTCOMES`.
            now: UTC, ISO 8601.
            mistake: its name, or None.
            answer: digest of the answer's source; None where there is no source: always new.
        """
        new = answer is None or answer not in self.answers
        attempts = self.attempts + new
        correct = outcome == OUTCOMES[-1]
        first = correct and self.first_correct is None
        return replace(
            self,
            outcome=max(self.outcome, outcome, key=OUTCOMES.index),
            attempts=attempts,
            first_attempt=self.first_attempt or now,
            last_attempt=now,
            first_correct=now if first else self.first_correct,
            mistakes=_counted(self.mistakes, mistake) if new and mistake else self.mistakes,
            answers=(*self.answers, answer)[-_MAX_ANSWERS:] if new and answer else self.answers,
            attempts_until_correct=attempts if first else self.attempts_until_correct,
        )

    def joined(self, other: "Record") -> "Record":
        """What both know of one exercise: the better outcome, every answer, the earliest times.

        The same in either order, and joining again changes nothing.

        Args:
            other: of the same exercise, from another file.
        """
        first, second = sorted((self, other), key=_age)
        answers = tuple(dict.fromkeys((*first.answers, *second.answers)))
        without_source = max(one.attempts - len(one.answers) for one in (self, other))
        solved = min((self, other), key=_solved)
        names = sorted({*self.mistakes, *other.mistakes})[:_MAX_MISTAKES]
        return Record(
            outcome=max(self.outcome, other.outcome, key=OUTCOMES.index),
            attempts=min(max(without_source, 0) + len(answers), _MAX_NUMBER),
            first_attempt=first.first_attempt,
            last_attempt=max(self.last_attempt or "", other.last_attempt or "") or None,
            first_correct=solved.first_correct,
            hints_seen=max(self.hints_seen, other.hints_seen),
            solution_seen=self.solution_seen or other.solution_seen,
            mistakes={n: max(self.mistakes.get(n, 0), other.mistakes.get(n, 0)) for n in names},
            answers=answers[-_MAX_ANSWERS:],
            attempts_until_correct=solved.attempts_until_correct,
        )


def _age(record: Record) -> tuple:
    return record.first_attempt or NEVER, record.answers


def _solved(record: Record) -> tuple:
    return record.first_correct or NEVER, record.attempts_until_correct or _MAX_NUMBER


def _counted(mistakes: dict[str, int], name: str) -> dict[str, int]:
    name = "".join(letter for letter in name if letter.isprintable())[:_MAX_NAME]
    if name not in mistakes and len(mistakes) >= _MAX_MISTAKES:
        return mistakes
    return mistakes | {name: mistakes.get(name, 0) + 1}


def progress_path() -> Path:
    """Where progress is kept: the environment's choice, the course folder, or the current one."""
    chosen = os.environ.get("CALIBCOURSE_PROGRESS")
    if chosen:
        return Path(chosen).expanduser()
    return (course_folder() or Path.cwd()) / ".calibcourse" / "progress.json"


def course_folder() -> Path | None:
    """The nearest folder, from the current one upwards, that holds the course; None outside.

    It holds `lessons` beside `solutions` or, where those are not given out, `pyproject.toml`.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        beside = (folder / "solutions").is_dir() or (folder / "pyproject.toml").is_file()
        if beside and (folder / "lessons").is_dir():
            return folder
    return None


def load(path: Path | None = None) -> dict[str, Record]:
    """Read the progress file; a missing file or the null device is an empty one.

    Args:
        path: of the file; None means `progress_path()`.

    Returns:
        Records by "lesson/exercise", such as "01/ece".

    Raises:
        UnreadableProgress: the file is too large, not JSON, or not a progress file (every field is
            checked; nothing in it is executed).
        OSError: it is no regular file, or cannot be opened.
    """
    return read_progress(path)[0]


def load_predictions(path: Path | None = None) -> dict[str, Guess]:
    """What the progress file has of predictions, by key; arguments and errors as in `load`."""
    return read_progress(path)[1]


def read_progress(path: Path | None = None) -> tuple[dict[str, Record], dict[str, Guess]]:
    """What the file has of exercises and of predictions; arguments and errors as in `load`."""
    path = path or progress_path()
    if path == Path(os.devnull):
        return {}, {}
    try:
        document = read_json(path, _MAX_BYTES)
    except FileNotFoundError:
        return {}, {}
    except ValueError:
        raise UnreadableProgress("not JSON, or too large") from None
    return _validated(document)


def record_attempt(
    key: str, outcome: str, mistake: str | None = None, answer: str | None = None
) -> str | None:
    """Remember the check of an answer.

    Args:
        key: of the exercise, "lesson/exercise".
        outcome: one of `OUTCOMES`.
        mistake: the name of the mistake that was found, or None.
        answer: digest of the answer's source (`digest`), or None where there is no source.

    Returns:
        None, or one line on why it was not saved.
    """
    now = _now()
    return _update(key, lambda record: record.attempted(outcome, now, mistake, answer))


def record_guess(key: str, answer: Value, sure: float) -> str | None:
    """Remember the answer to a prediction; once its result was shown, the first answer stays.

    Args:
        key: of the prediction, "lesson/name".
        answer: a number, or one of its options.
        sure: the probability of being right that the learner states, in [0, 1].

    Returns:
        None, or one line on why it was not saved.
    """
    return _update_guess(key, lambda guess: guess.with_answer(answer, sure, _now()))


def record_truth(key: str, truth: Value) -> str | None:
    """Remember what a lesson showed as the result. Returns None, or why it was not saved."""
    return _update_guess(key, lambda guess: guess.with_truth(truth, _now()))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def digest(source: str) -> str:
    r"""16 hexadecimal digits that stand for an answer; comments and layout make no difference.

    Example:
        >>> digest("def f(x):\n    return x  # what else?") == digest("def f(x): return x")
        True
    """
    # What is no whole statement, such as a lambda's line, is taken as it stands.
    with suppress(SyntaxError, ValueError, RecursionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = ast.unparse(ast.parse(textwrap.dedent(source)))
    return hashlib.sha256(source.encode(errors="replace")).hexdigest()[:16]


def record_hint(key: str, number: int) -> str | None:
    """Remember that hints 1 to `number` were shown. Returns None, or why it was not saved."""
    return _update(key, lambda record: replace(record, hints_seen=max(record.hints_seen, number)))


def record_solution(key: str) -> str | None:
    """Remember that the solution was shown. Returns None, or why it was not saved."""
    return _update(key, lambda record: replace(record, solution_seen=True))


def absorb(
    records: dict[str, Record], guesses: dict[str, Guess], into: Path | None = None
) -> str | None:
    """Join what another file has with what is here.

    Args:
        records, guesses: of the other file, by key (`read_progress`).
        into: the file that is written; None means `progress_path()`.

    Returns:
        None, or one line on why it was not saved.
    """

    def changed(own: dict[str, Record], own_guesses: dict[str, Guess]) -> None:
        for key, record in records.items():
            own[key] = own[key].joined(record) if key in own else record
        for key, guess in guesses.items():
            own_guesses[key] = own_guesses[key].joined(guess) if key in own_guesses else guess

    return _rewrite(changed, into)


def _update(key: str, change: Callable[[Record], Record]) -> str | None:
    def changed(records: dict[str, Record], _: dict[str, Guess]) -> None:
        records[key] = change(records.get(key, Record()))

    return _rewrite(changed) or _word()


def _update_guess(key: str, change: Callable[[Guess], Guess]) -> str | None:
    def changed(_: dict[str, Record], guesses: dict[str, Guess]) -> None:
        guesses[key] = change(guesses.get(key, Guess()))

    return _rewrite(changed) or _word()


def _word() -> str | None:
    return word(progress_path(), course_folder() is not None)


def _rewrite(
    change: Callable[[dict[str, Record], dict[str, Guess]], None], into: Path | None = None
) -> str | None:
    try:
        path = into or progress_path()
        if path == Path(os.devnull):
            return None
        # The lock and a damaged file set aside lie beside the target of a link, as what is written.
        path = path.resolve()
        # Writing would be refused, but only after a lock file beside a pipe or a device.
        if path.exists() and not path.is_file():
            return _NOT_WRITABLE
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            records, guesses, note = _load_or_set_aside(path)
            change(records, guesses)
            document = {
                "version": VERSION,
                "exercises": {name: asdict(record) for name, record in sorted(records.items())},
                "predictions": {name: asdict(guess) for name, guess in sorted(guesses.items())},
            }
            if len(json.dumps(document, indent=1)) >= _MAX_BYTES:  # it could not be read again
                return "Progress not saved: its file would become too large."
            write_json(path, document)
        return note
    except NewerProgress:
        return "Progress not saved: the progress file comes from a newer version of the course."
    except Timeout:
        return "Progress not saved: another program holds the progress file."
    except (OSError, RuntimeError):  # the latter: no home folder, a loop of links, no locks
        return _NOT_WRITABLE


def _load_or_set_aside(path: Path) -> tuple[dict[str, Record], dict[str, Guess], str | None]:
    try:
        return *read_progress(path), None
    except NewerProgress:
        raise
    except UnreadableProgress as problem:
        aside = next(name for name in _asides(path) if not name.exists())
        os.replace(path, aside)
        return {}, {}, f"The progress file was unreadable ({problem}); it is kept as {aside.name}."


def _asides(path: Path) -> Iterator[Path]:
    yield Path(f"{path}.bak")
    yield from (Path(f"{path}.{number}.bak") for number in count(2))


def _validated(document: object) -> tuple[dict[str, Record], dict[str, Guess]]:
    if not isinstance(document, dict) or not _natural(document.get("version")):
        raise UnreadableProgress("not a progress file")
    if document["version"] > VERSION:
        raise NewerProgress("written by a newer version of the course")
    exercises = document.get("exercises")
    predictions = document.get("predictions") if document["version"] >= 3 else {}
    if not isinstance(exercises, dict) or not isinstance(predictions, dict):
        raise UnreadableProgress("not a progress file")
    known = {field.name for field in fields(Record)} - (
        _SINCE_2 if document["version"] < 2 else set()
    )
    records = {key: _validated_record(entry, known) for key, entry in exercises.items()}
    return records, {key: _validated_guess(entry) for key, entry in predictions.items()}


def _validated_guess(entry: object) -> Guess:
    if not isinstance(entry, dict) or set(entry) != FIELDS:
        raise UnreadableProgress("a prediction has the wrong fields")
    guess = Guess(**entry)
    if not (possible(guess) and _time(guess.answered) and _time(guess.shown)):
        raise UnreadableProgress("a prediction has impossible values")
    return guess


def _validated_record(entry: object, known: set[str]) -> Record:
    if not isinstance(entry, dict) or set(entry) != known:
        raise UnreadableProgress("an entry has the wrong fields")
    if not isinstance(entry.get("answers", []), list):
        raise UnreadableProgress("an entry has impossible values")
    record = Record(**entry | {"answers": tuple(entry.get("answers", ()))})
    valid = (
        record.outcome in OUTCOMES
        and _valid_mistakes(record.mistakes)
        and len(record.answers) <= _MAX_ANSWERS
        and all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in record.answers)
        and (record.attempts_until_correct is None or _natural(record.attempts_until_correct))
        and _natural(record.attempts)
        and _natural(record.hints_seen)
        and isinstance(record.solution_seen, bool)
        and all(map(_time, (record.first_attempt, record.last_attempt, record.first_correct)))
    )
    if not valid:
        raise UnreadableProgress("an entry has impossible values")
    return record


def _valid_mistakes(mistakes: object) -> bool:
    return (
        isinstance(mistakes, dict)
        and len(mistakes) <= _MAX_MISTAKES
        and all(name.isprintable() and len(name) <= _MAX_NAME for name in mistakes)
        and all(map(_natural, mistakes.values()))
    )


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_NUMBER


def _time(value: object) -> bool:
    if value is None:
        return True
    try:
        # Between date and time fromisoformat takes any character, one that cannot be printed too.
        written = isinstance(value, str) and value.isascii() and value.isprintable()
        return written and len(value) <= 40 and bool(datetime.fromisoformat(value))
    except ValueError:
        return False
