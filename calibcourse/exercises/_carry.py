"""Results taken along from a machine that is thrown away, and brought back: none is ever lost."""

import base64
from contextlib import suppress
from pathlib import Path

from IPython.display import HTML, display

from . import store
from ._card import Card
from ._place import host

FILE = "my_progress.json"


def export_progress(to: str | Path = FILE) -> None:
    """Save the results to a file to take along; offer it for download.

    A file of that name that holds results already gains these and loses none of its own.

    Args:
        to: path of the file.
    """
    to = Path(to).expanduser()
    try:
        records, guesses = store.read_progress()
        if to.exists():
            store.load(to)  # what holds something else is not touched
    except (store.UnreadableProgress, OSError, RuntimeError) as problem:
        return _refuse("not exported", problem)
    if not (records or guesses):
        return _refuse("nothing to export", "no answer was checked yet")
    note = store.absorb(records, guesses, to)
    Path(f"{to}.lock").unlink(missing_ok=True)  # no clutter beside the learner's notebooks
    if note:
        return _refuse("not exported", note)
    rows = (*_counts(records, guesses), ("Saved as", str(to)))
    display(Card("→", "exported", "your progress", "good", rows))
    _download(to)


def import_progress(path: str | Path = FILE) -> None:
    """Bring results back from a file that `export_progress` saved; of two, the better stays.

    Args:
        path: of the file; on Colab and Binder, upload it in the file browser first.
    """
    try:
        path = Path(path).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}; upload it in the file browser")
        before, found = store.read_progress(), store.read_progress(path)
    except (store.UnreadableProgress, OSError, RuntimeError) as problem:
        return _refuse("not imported", problem)
    note = store.absorb(*found)
    if note:
        return _refuse("not imported", note)
    gained = [
        {key: one for key, one in now.items() if old.get(key) != one}
        for old, now in zip(before, store.read_progress(), strict=True)
    ]
    rows = (
        *_counts(*found),
        ("Gained", ", ".join(f"{n} {what.lower()}" for what, n in _counts(*gained))),
    )
    display(Card("←", "imported", "your progress", "good", rows))


def _counts(records: dict, guesses: dict) -> tuple[tuple[str, str], ...]:
    return ("Exercises", str(len(records))), ("Predictions", str(len(guesses)))


def _refuse(word: str, problem: object) -> None:
    display(Card("✗", word, "your progress", "bad", (("Reason", str(problem)),)))


def _download(path: Path) -> None:
    if host() == "Colab":
        with suppress(Exception):  # outside a browser there is nobody to hand it to
            from google.colab import files

            return files.download(str(path))
    content = base64.b64encode(path.read_bytes()).decode()
    link = f"data:application/json;base64,{content}"
    display(HTML(f'<a download="{FILE}" href="{link}">Download {FILE}</a>'))
