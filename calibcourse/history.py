"""The record of a training run: one row of numbers per probed step, kept as plain JSON."""

import math
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from reprlib import repr as short_repr
from typing import Any

import numpy as np

from ._checks import check_choice, check_integer
from ._files import read_json, write_json

FORMAT = "calibcourse.history"
VERSION = 1
MAX_FLOAT = sys.float_info.max
MAX_STEP = 2**63 - 1  # of int64
# What older records call a column, and its name now: misconfidence is 1 - c, not 1 - p_y.
RENAMED = ("log_misconfidence", "log_error_probability")


@dataclass(frozen=True)
class History:
    """What the probes of a run saw, row by row.

    Args:
        rows: one dict per probed step, in order; key "step" is the number of updates made so far,
            every other key a column (the table in `calibcourse.probes` names them and their
            units). A value that was not measured or not finite is NaN.
        metadata: how the run was made: seed, lr, optimizer, batch size, steps, loss, data, model,
            device, threads, torch version.
        diverged_at: the update whose loss (or the step whose probe) was NaN or infinite, where the
            run stopped; None if it reached its end.

    Example:
        >>> history = History([{"step": 0, "train_ece": 0.3}, {"step": 9, "train_ece": 0.1}])
        >>> history
        History(2 rows, steps 0 to 9, columns: train_ece)
        >>> history.column("train_ece")
        array([0.3, 0.1])
    """

    rows: list[dict[str, float]]
    metadata: dict[str, Any] = field(default_factory=dict)
    diverged_at: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that some row has, in order of first appearance, "step" first."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def column(self, name: str) -> np.ndarray:
        """One quantity along the run, NaN where it was not measured.

        Args:
            name: one of `columns`.

        Returns:
            (rows,) array: int64 for "step", float64 for the rest.

        Raises:
            ValueError: no row has that column; the error lists those there are.

        Example:
            >>> History([{"step": 0}, {"step": 5, "sharpness": 2.0}]).column("sharpness")
            array([nan,  2.])
        """
        check_choice(name, "name", self.columns)
        if name == "step":
            return np.array([row["step"] for row in self.rows], dtype=np.int64)
        return np.array([row.get(name, math.nan) for row in self.rows], dtype=np.float64)

    def best(self, name: str, largest: bool = False) -> dict[str, float]:
        """The row with the smallest (or largest) value of a column: early stopping, after the fact.

        Args:
            name: one of `columns`, such as "validation_loss".
            largest: ask for the largest value instead, as for an accuracy.

        Returns:
            That row; the earliest where several tie. Rows without the value do not take part.

        Raises:
            ValueError: no such column, or no finite value in it.

        Example:
            >>> rows = [{"step": s, "validation_loss": v} for s, v in enumerate((2.3, 0.5, 0.9))]
            >>> History(rows).best("validation_loss")["step"]
            1
        """
        values = self.column(name).astype(float)
        if not np.isfinite(values).any():
            raise ValueError(f"name must be a column with a finite value, {name!r} has none")
        values = np.where(np.isfinite(values), -values if largest else values, np.inf)
        return self.rows[int(np.argmin(values))]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: non-finite numbers become None, nothing is rounded."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "metadata": self.metadata,
            "diverged_at": self.diverged_at,
            "rows": [
                {name: value if math.isfinite(value) else None for name, value in row.items()}
                for row in self.rows
            ],
        }

    @classmethod
    def from_dict(cls, record: Any, source: str = "record") -> "History":
        """Rebuild a history from `to_dict`'s data, after checking its schema.

        Args:
            record: the plain data.
            source: what to call it in errors.

        Returns:
            The history, equal to the one that was saved.

        Raises:
            ValueError: another format or version, or fields of the wrong type or order.

        Example:
            >>> record = History([{"step": 0, "train_ece": 0.3}]).to_dict()
            >>> History.from_dict(record).column("train_ece")
            array([0.3])
        """
        if not isinstance(record, dict):
            raise ValueError(f"{source} must hold an object, got {type(record).__name__}")
        found = record.get("format"), record.get("version")
        if found != (FORMAT, VERSION):
            raise ValueError(
                f"{source} must be a {FORMAT} of version {VERSION}, "
                f"got format {short_repr(found[0])}, version {short_repr(found[1])}"
            )
        metadata, diverged_at = record.get("metadata"), record.get("diverged_at")
        if not isinstance(metadata, dict):
            raise ValueError(f"{source}: metadata must be an object")
        if diverged_at is not None and not _is_step(diverged_at):
            found = short_repr(diverged_at)
            raise ValueError(f"{source}: diverged_at must be a step or null, got {found}")
        return cls(_checked_rows(record.get("rows"), source), metadata, diverged_at)

    def save(self, path: str | os.PathLike) -> None:
        """Write the history as JSON, atomically: a kill leaves the old file or the new one."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "History":
        """Read a saved history.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it is no regular file, or cannot be opened.
            ValueError: too large, not JSON, another version, or malformed; the file is named.
        """
        return cls.from_dict(read_json(path), str(path))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return "History(0 rows)"
        text = f"{len(self)} rows, steps {self.rows[0]['step']} to {self.rows[-1]['step']}"
        names = self.columns[1:]
        text += f", columns: {', '.join(names)}" if names else ""
        if self.diverged_at is not None:
            text += f", diverged at step {self.diverged_at}"
        return f"History({text})"


def even_steps(steps: int, n: int) -> list[int]:
    """About n steps from 0 to `steps`, evenly spaced, both ends included.

    Args:
        steps: length of the run, >= 0.
        n: how many to choose, >= 2; all of them where there are fewer.

    Returns:
        Increasing step numbers.

    Raises:
        TypeError, ValueError: not integers, or too small.

    Example:
        >>> even_steps(1000, 5)
        [0, 250, 500, 750, 1000]
    """
    steps = check_integer(steps, "steps", 0)
    n = check_integer(n, "n", 2)
    return _rounded(np.linspace(0, steps, n))


def log_steps(steps: int, n: int) -> list[int]:
    """About n steps from 0 to `steps`, each a constant factor after the one before it.

    Early training, where most changes, gets most of the points. Rounded steps that coincide are
    merged, so that fewer than n may remain.

    Args:
        steps: length of the run, >= 1.
        n: how many to choose, >= 2; step 0 is one of them.

    Returns:
        Increasing step numbers.

    Raises:
        TypeError, ValueError: not integers, or too small.

    Example:
        >>> log_steps(1000, 5)
        [0, 1, 10, 100, 1000]
    """
    steps = check_integer(steps, "steps", 1)
    n = check_integer(n, "n", 2)
    return [0, *_rounded(np.geomspace(1, steps, n - 1))]


def _rounded(steps: Iterable[float]) -> list[int]:
    return sorted({round(float(step)) for step in steps})


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_STEP


def _checked_rows(rows: Any, source: str) -> list[dict[str, float]]:
    """Rows with None turned back into NaN, after checking types and that steps increase."""
    if not isinstance(rows, list):
        raise ValueError(f"{source}: rows must be an array, got {type(rows).__name__}")
    checked, previous = [], -1
    for index, row in enumerate(rows):
        step = row.get("step") if isinstance(row, dict) else None
        if not _is_step(step) or step <= previous:
            raise ValueError(f"{source}: row {index} must have an integer step above {previous}")
        for name, value in row.items():
            if not isinstance(name, str):
                raise ValueError(f"{source}: row {index} must name its columns by text")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            # Compared, not converted: float() of a huge integer would raise.
            if value is not None and not (number and -MAX_FLOAT <= value <= MAX_FLOAT):
                raise ValueError(
                    f"{source}: row {index}, {short_repr(name)} must be a number or null"
                )
        checked.append(
            {name.replace(*RENAMED): math.nan if v is None else v for name, v in row.items()}
        )
        previous = step
    return checked
