"""`calibcourse progress`: what the learner has done, read from their own disk."""

import csv as csv_format
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from ..exercises import Exercise, all_exercises, all_predictions
from ..exercises.predictions import counted
from ..exercises.store import (
    Record,
    UnreadableProgress,
    load,
    load_predictions,
    progress_path,
)

COLUMNS = (
    "lesson",
    "exercise",
    "outcome",
    "attempts",
    "hints",
    "solution_seen",
    "first_correct",
)


def main(csv: bool = False) -> int:
    """Print the outcome of every exercise of the course, tried or not.

    Args:
        csv: print comma-separated values with the header `COLUMNS`, for an instructor to collect;
            otherwise a table for the learner.

    Returns:
        0, or 1 where the progress file cannot be read (all exercises then count as not attempted).
    """
    records, status = {}, 0
    try:
        path = progress_path()
        records = load(path)
    except (UnreadableProgress, OSError, RuntimeError) as problem:
        print(f"The progress file cannot be read: {problem}.", file=sys.stderr)
        status = 1
    rows = progress_rows(all_exercises(), records)
    if csv:
        writer = csv_format.writer(sys.stdout, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    else:
        print(progress_table(rows))
        if not status:
            confidence, correct = counted(all_predictions(), load_predictions(path))
            if len(correct):
                print(predictions_line(confidence, correct))
            print(_where(path))
    return status


def _where(path: Path) -> str:
    if path == Path(os.devnull):
        return f"Progress is not kept: CALIBCOURSE_PROGRESS is {path}"
    return f"Kept in {path}" if path.exists() else f"Will be kept in {path}"


def predictions_line(confidence: Tensor, correct: Tensor) -> str:
    """How sure the learner was of the predictions that count, and how often right.

    Args:
        confidence, correct: (N,) from `counted`, N at least 1.

    Example:
        >>> import torch
        >>> predictions_line(torch.tensor([0.9, 0.8]), torch.tensor([True, False]))
        '2 predictions with a result: 1 right; on average you were 85 % sure'
    """
    n = len(correct)
    sure = f"on average you were {100 * confidence.mean():.0f} % sure"
    return f"{n} prediction{'s' * (n > 1)} with a result: {int(correct.sum())} right; {sure}"


def progress_rows(
    exercises: Iterable[Exercise], records: dict[str, Record]
) -> list[tuple[str, ...]]:
    """One row of text per exercise, in the order of `COLUMNS`.

    Args:
        exercises: of the course.
        records: by key; records of exercises that no longer exist are passed over.

    Example:
        >>> progress_rows(all_exercises(), {})[0]
        ('00', 'over_confidence', 'not attempted', '0', '0', 'no', '')
    """
    rows = []
    for exercise in exercises:
        record = records.get(exercise.key, Record())
        rows.append(
            (
                exercise.lesson,
                exercise.name,
                record.outcome,
                str(record.attempts),
                str(record.hints_seen),
                "yes" if record.solution_seen else "no",
                record.first_correct or "",
            )
        )
    return rows


def progress_table(rows: list[tuple[str, ...]]) -> str:
    """The rows as a table with aligned columns, and how many exercises are correct.

    Example:
        >>> print(progress_table([("00", "warm_up", "correct", "2", "0", "no", "")]))
        lesson  exercise  outcome  attempts  hints  solution seen  first correct
        00      warm_up   correct  2         0      no
        1 of 1 correct
    """
    header = tuple(column.replace("_", " ") for column in COLUMNS)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    correct = sum(row[COLUMNS.index("outcome")] == "correct" for row in rows)
    return "\n".join([*lines, f"{correct} of {len(rows)} correct"])
