"""The learner's progress: one small JSON file on their own disk, and nothing else.

The file is `$CALIBCOURSE_PROGRESS` if that is set, else `.calibcourse/progress.json` in the course
folder. It survives updates of the course (entries of unknown exercises are kept), several notebooks
may write at once, and a damaged file is set aside, never trusted. Setting the variable to the null
device keeps no progress at all.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from .._files import read_json, write_json

VERSION = 1
OUTCOMES = ("not attempted", "your code raised", "incorrect", "correct")  # from worst to best
_MAX_BYTES = 1_000_000
_LOCK_SECONDS = 5.0
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
        attempts: checks of an answer; an untouched stub does not count.
        first_attempt, last_attempt, first_correct: UTC, ISO 8601, or None.
        hints_seen: the number of different hints shown.
        solution_seen: whether the solution was shown.
    """

    outcome: str = OUTCOMES[0]
    attempts: int = 0
    first_attempt: str | None = None
    last_attempt: str | None = None
    first_correct: str | None = None
    hints_seen: int = 0
    solution_seen: bool = False

    def attempted(self, outcome: str, now: str) -> "Record":
        """The record after one more attempt."""
        best = max(self.outcome, outcome, key=OUTCOMES.index)
        return replace(
            self,
            outcome=best,
            attempts=self.attempts + 1,
            first_attempt=self.first_attempt or now,
            last_attempt=now,
            first_correct=self.first_correct or (now if outcome == OUTCOMES[-1] else None),
        )


def progress_path() -> Path:
    """Where progress is kept: the environment's choice, the course folder, or the current one.

    The course folder is the nearest one, from the current folder upwards, that holds `lessons`
    beside `solutions` or beside `pyproject.toml`.
    """
    chosen = os.environ.get("CALIBCOURSE_PROGRESS")
    if chosen:
        return Path(chosen).expanduser()
    here = Path.cwd()
    for folder in (here, *here.parents):
        beside = (folder / "solutions").is_dir() or (folder / "pyproject.toml").is_file()
        if beside and (folder / "lessons").is_dir():
            return folder / ".calibcourse" / "progress.json"
    return here / ".calibcourse" / "progress.json"


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
    path = path or progress_path()
    if path == Path(os.devnull):
        return {}
    try:
        document = read_json(path, _MAX_BYTES)
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UnreadableProgress("not JSON, or too large") from None
    return _validated(document)


def record_attempt(key: str, outcome: str) -> str | None:
    """Remember an attempt at an exercise. Returns None, or one line on why it was not saved."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return _update(key, lambda record: record.attempted(outcome, now))


def record_hint(key: str, number: int) -> str | None:
    """Remember that hints 1 to `number` were shown. Returns None, or why it was not saved."""
    return _update(key, lambda record: replace(record, hints_seen=max(record.hints_seen, number)))


def record_solution(key: str) -> str | None:
    """Remember that the solution was shown. Returns None, or why it was not saved."""
    return _update(key, lambda record: replace(record, solution_seen=True))


def _update(key: str, change: Callable[[Record], Record]) -> str | None:
    try:
        path = progress_path()
        if path == Path(os.devnull):
            return None
        # The lock and a damaged file set aside lie beside the target of a link, as what is written.
        path = path.resolve()
        # Writing would be refused, but only after a lock file beside a pipe or a device.
        if path.exists() and not path.is_file():
            return _NOT_WRITABLE
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            records, note = _load_or_set_aside(path)
            records[key] = change(records.get(key, Record()))
            exercises = {name: asdict(record) for name, record in sorted(records.items())}
            write_json(path, {"version": VERSION, "exercises": exercises})
        return note
    except NewerProgress:
        return "Progress not saved: the progress file comes from a newer version of the course."
    except Timeout:
        return "Progress not saved: another program holds the progress file."
    except (OSError, RuntimeError):  # the latter: no home folder, a loop of links, no locks
        return _NOT_WRITABLE


def _load_or_set_aside(path: Path) -> tuple[dict[str, Record], str | None]:
    try:
        return load(path), None
    except NewerProgress:
        raise
    except UnreadableProgress as problem:
        aside = next(name for name in _asides(path) if not name.exists())
        os.replace(path, aside)
        return {}, f"The progress file was unreadable ({problem}); it is kept as {aside.name}."


def _asides(path: Path) -> Iterator[Path]:
    yield Path(f"{path}.bak")
    yield from (Path(f"{path}.{number}.bak") for number in count(2))


def _validated(document: object) -> dict[str, Record]:
    if not isinstance(document, dict) or not _natural(document.get("version")):
        raise UnreadableProgress("not a progress file")
    if document["version"] > VERSION:
        raise NewerProgress("written by a newer version of the course")
    exercises = document.get("exercises")
    if not isinstance(exercises, dict):
        raise UnreadableProgress("not a progress file")
    return {key: _validated_record(entry) for key, entry in exercises.items()}


def _validated_record(entry: object) -> Record:
    names = {field.name for field in fields(Record)}
    if not isinstance(entry, dict) or set(entry) != names:
        raise UnreadableProgress("an entry has the wrong fields")
    record = Record(**entry)
    valid = (
        record.outcome in OUTCOMES
        and _natural(record.attempts)
        and _natural(record.hints_seen)
        and isinstance(record.solution_seen, bool)
        and all(map(_time, (record.first_attempt, record.last_attempt, record.first_correct)))
    )
    if not valid:
        raise UnreadableProgress("an entry has impossible values")
    return record


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def _time(value: object) -> bool:
    if value is None:
        return True
    try:
        # Between date and time fromisoformat takes any character, one that cannot be printed too.
        written = isinstance(value, str) and value.isascii() and value.isprintable()
        return written and len(value) <= 40 and bool(datetime.fromisoformat(value))
    except ValueError:
        return False
