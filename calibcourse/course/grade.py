"""`calibcourse grade`: submitted notebooks, checked by this machine's own package.

Each answer runs in a process of its own, confined and with limits; what comes back is text, and is
treated as such. A result is kept as soon as it is there, by the digest of the file, so that a run
that was killed goes on where it stopped and a notebook that has not changed is not run again.
"""

import hashlib
import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from .._files import open_regular, read_json, shortened, write_atomically, write_json
from .._page import Html, csv_table, page, table, tag
from ..exercises._card import Card
from ..exercises.store import OUTCOMES
from . import answers, confine, examiner
from .build import available_cores

WALL_SECONDS = 300  # of one exercise; computing time ends before, waiting does not
KEPT = ".calibcourse_grades"  # within the folder of submissions
COLUMNS = ("student", "file", "sha256", "lesson", "exercise", "outcome", "mistake", "reason")
MISSING, REFUSED, STOPPED = "missing", "refused", "stopped"
_SIGN = {"correct": "✓", "incorrect": "✗", "your code raised": "!", "not attempted": "○"}
_MAX_MESSAGE = 200_000  # bytes


@dataclass(frozen=True)
class Result:
    """How one answer did.

    Attributes:
        exercise: its key, "lesson/exercise"; "" where the whole file is refused.
        outcome: one of the check's four, or "missing", "refused", "stopped".
        mistake: its name, or "".
        reason: why it was refused or stopped, or "".
        card: what the check shows, as the fields of a `Card`, or None.
    """

    exercise: str
    outcome: str
    mistake: str = ""
    reason: str = ""
    card: dict[str, Any] | None = None


@dataclass(frozen=True)
class Submission:
    """One graded file.

    Attributes:
        student: named by the folder below the one that was graded, else by the file.
        file: path within the folder.
        digest: SHA-256 of the file; "" where it cannot be read.
        results: one per exercise of its lesson.
    """

    student: str
    file: str
    digest: str
    results: tuple[Result, ...]


def grade(
    folder: str | Path,
    csv: str | None = None,
    html: str | None = None,
    jobs: int | None = None,
    log: Callable[[str], None] = print,
) -> int:
    """Grade every notebook below a folder.

    Args:
        folder: of the submissions: `ada.ipynb`, or `ada/01_confidence_and_ece.ipynb`.
        csv: where to write one row per student and exercise.
        html: folder for a page per student and an index.
        jobs: notebooks at a time; None means one per core.
        log: told what confines the answers, one line per notebook, and what was written.

    Returns:
        0.

    Raises:
        ValueError: there is no notebook.
        OSError: something cannot be written; what was graded is kept.
    """
    folder = Path(folder)
    paths = _notebooks(folder)
    if not paths:
        raise ValueError(f"no notebook (.ipynb) in {folder}")
    log(_announcement(_ask(examiner.layers).get("layers", [])))
    submissions = []
    with ThreadPoolExecutor(jobs or available_cores()) as pool:
        for done in pool.map(lambda path: grade_file(folder, path), paths):
            submissions.append(done)
            log(f"{done.file}: {_in_short(done)}")
    if csv:
        write_atomically(csv, grades_csv(submissions).encode())
        log(f"wrote {csv}")
    if html:
        for name, text in grade_pages(submissions).items():
            write_atomically(Path(html) / name, text.encode())
        log(f"wrote {Path(html) / 'index.html'}")
    return 0


def grade_file(folder: Path, path: Path) -> Submission:
    """Grade one notebook, or take over what is kept of it.

    Args:
        folder: of the submissions.
        path: of the notebook, within it.
    """
    inside = path.relative_to(folder)
    student = _printable(inside.parts[0] if len(inside.parts) > 1 else inside.stem)
    name = _printable(inside.as_posix())
    try:
        with open_regular(path) as stream:
            content = stream.read(answers.MAX_BYTES + 1)
    except OSError as error:
        return Submission(student, name, "", (Result("", REFUSED, reason=str(error.strerror)),))
    digest = hashlib.sha256(content).hexdigest()
    kept = folder / KEPT / f"{digest}-{_rules()}.json"
    results = _kept(kept)
    if results is None:
        results = tuple(_results(content))
        if all(result.outcome != STOPPED for result in results):  # time may be the machine's fault
            write_json(kept, [asdict(result) for result in results])
    return Submission(student, name, digest, results)


def _results(content: bytes) -> Iterator[Result]:
    found = _ask(examiner.survey, content)
    if "answers" not in found:
        yield Result("", REFUSED, reason=_text(found.get("refused") or found.get("stopped")))
        return
    for key, taken in found["answers"].items():
        if key not in examiner.EXERCISES:
            continue
        if taken["missing"]:
            yield Result(key, MISSING, reason="its function is not in the notebook")
        elif taken["refused"]:
            yield Result(key, REFUSED, reason=_text(taken["refused"]))
        else:
            yield _result(key, _ask(examiner.examine, key, taken["code"]))


def _result(key: str, found: dict[str, Any]) -> Result:
    """A message of the examiner as a result; whatever it holds, only text comes out of it."""
    if found.get("outcome") in OUTCOMES and isinstance(found.get("card"), dict):
        card = found["card"]
        fields = {name: _text(card.get(name)) for name in ("icon", "word", "title", "code")}
        tone = card.get("tone") if card.get("tone") in ("good", "bad", "warn", "calm") else "calm"
        pairs = [row for row in card.get("rows") or () if isinstance(row, list) and len(row) == 2]
        rows = [[_text(label, 100), _text(text, 4000)] for label, text in pairs[:20]]
        mistake = _text(found.get("mistake") or "", 120)
        fields |= {"tone": tone, "rows": rows}
        return Result(key, found["outcome"], mistake=mistake, card=fields)
    if "refused" in found:
        return Result(key, REFUSED, reason=_text(found["refused"]))
    return Result(key, STOPPED, reason=_text(found.get("stopped")))


def _ask(target: Callable[..., None], *arguments: Any) -> dict[str, Any]:
    """Run a function of the examiner in a process of its own; its message, or why there is none."""
    receiver, sender = _processes().Pipe(duplex=False)
    process = _processes().Process(target=target, args=(sender, *arguments), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(WALL_SECONDS):
            return {"stopped": f"it did not come back in {WALL_SECONDS} seconds"}
        message = json.loads(receiver.recv_bytes(_MAX_MESSAGE))
        return message if isinstance(message, dict) else {"stopped": "it gave no result"}
    except (EOFError, OSError, ValueError, RecursionError):
        process.join(5)  # it has closed its end: it is ending
        if process.exitcode == -getattr(signal, "SIGXCPU", 24):
            return {"stopped": f"it took more than {confine.CPU_SECONDS} seconds to compute"}
        return {"stopped": f"it ended its process (exit status {process.exitcode})"}
    finally:
        _end(process)
        receiver.close()


def _end(process: Any) -> None:
    with suppress(ProcessLookupError, PermissionError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)  # what it may have started, where that is possible
    process.kill()
    process.join()
    process.close()


def _processes() -> Any:
    """Processes that know nothing of this one's memory, cheap where the system can fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The program that calls this, too: each process would import it again, in seconds.
    context.set_forkserver_preload(["__main__", examiner.__name__, __name__])
    return context


def _rules() -> str:
    """Changes whenever an answer might be judged in another way."""
    code = hashlib.sha256(__version__.encode())
    package = Path(__file__).parents[1]
    own = [Path(module.__file__) for module in (answers, confine, examiner)]
    for path in sorted((package / "exercises").glob("*.py")) + own:
        code.update(path.read_bytes())
    return code.hexdigest()[:12]


def _kept(path: Path) -> tuple[Result, ...] | None:
    try:
        stored = read_json(path)
        return tuple(Result(**entry) for entry in stored)
    except (OSError, ValueError, TypeError):
        return None


def _notebooks(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.ipynb"))
    inside = [path.relative_to(folder) for path in found]
    return [folder / one for one in inside if not any(part.startswith(".") for part in one.parts)]


def _announcement(layers: list[str]) -> str:
    if len(layers) == 4:
        limits = f"{confine.CPU_SECONDS} s of computing time and {confine.MEMORY / 2**30:.0f} GiB"
        return f"An answer has no files, no processes, no network, {limits}"
    held = " and ".join(layers) or "nothing"
    return (
        f"On this system an answer is held by {held} only, which a determined author gets round: "
        "grade strangers' notebooks on Linux"
    )


# --- What is written ---------------------------------------------------------------------------


def grades_csv(submissions: list[Submission]) -> str:
    """One row per student and exercise, with the header `COLUMNS`."""
    rows = []
    for one in submissions:
        for result in one.results:
            lesson, _, exercise = result.exercise.partition("/")
            row = (one.student, one.file, one.digest, lesson, exercise)
            rows.append((*row, result.outcome, result.mistake, result.reason))
    return csv_table(COLUMNS, rows)


def grade_pages(submissions: list[Submission]) -> dict[str, str]:
    """The text of each page by its file name: one per student, and `index.html`."""
    students: dict[str, list[Submission]] = {}
    for one in submissions:
        students.setdefault(one.student, []).append(one)
    names: dict[str, str] = {}
    for student in students:
        slug = re.sub(r"[^\w-]+", "_", student)[:60] or "student"
        while f"{slug}.html".lower() in {n.lower() for n in names.values()} | {"index.html"}:
            slug += "_"
        names[student] = f"{slug}.html"
    pages = {names[student]: _student_page(student, own) for student, own in students.items()}
    return pages | {"index.html": _index(students, names)}


def _index(students: dict[str, list[Submission]], names: dict[str, str]) -> str:
    graded = {result.exercise for own in students.values() for one in own for result in one.results}
    keys = [key for key in examiner.EXERCISES if key in graded]
    rows = []
    for student, own in students.items():
        results = {result.exercise: result for one in own for result in one.results}
        right = sum(result.outcome == "correct" for result in results.values())
        shown = [_in_a_cell(results.get(key)) for key in keys]
        whole = results[""].reason if "" in results else ""
        rows.append((tag("a", student, href=names[student]), right, *shown, whole))
    header = ("student", "right", *keys, "refused as a whole")
    return page("Grades", [table(header, rows)])


def _in_a_cell(result: Result | None) -> str:
    return "" if result is None else f"{_SIGN.get(result.outcome, '–')} {result.outcome}"


def _student_page(student: str, submissions: list[Submission]) -> str:
    body: list[Html] = []
    for one in submissions:
        digest = tag("code", one.digest or "not readable")
        body.append(tag("p", one.file, tag("br"), "SHA-256 ", digest, class_="muted"))
        for result in one.results:
            title = _title(result)
            body.append(tag("h2", f"{title}: {result.outcome}"))
            if result.reason:
                body.append(tag("p", result.reason))
            if result.card:
                rows = tuple((label, text) for label, text in result.card["rows"])
                body.append(Html(Card(**result.card | {"rows": rows})._repr_html_()))
    return page(student, body)


def _title(result: Result) -> str:
    if not result.exercise:
        return "The notebook"
    return f"{result.exercise} · {examiner.EXERCISES[result.exercise].title}"


def _in_short(one: Submission) -> str:
    if one.results and not one.results[0].exercise:
        return f"refused: {one.results[0].reason}"
    right = sum(result.outcome == "correct" for result in one.results)
    return f"{right} of {len(one.results)} correct"


def _text(value: object, most: int = 2000) -> str:
    text = value if isinstance(value, str) else shortened(value)
    return "".join(letter for letter in text[:most] if letter.isprintable() or letter == "\n")


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())
