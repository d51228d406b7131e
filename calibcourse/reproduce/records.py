"""Finished runs: a run is one file of a sweep's folder, a sweep is many in one small file.

What is read is held to its schema and to `_files.MAX_JSON_BYTES`; records are our own files.
"""

import math
import os
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from .._checks import check_choice, check_integer
from .._files import read_json, write_json
from ..history import History
from .configs import ComparisonConfig, Config, ShiftConfig, TrajectoryConfig

RUN_FORMAT, SWEEP_FORMAT = "calibcourse.run", "calibcourse.sweep"
VERSION = 1
DIGITS = 5  # significant, in a sweep: far below the seed-to-seed spread

AnyConfig = TypeVar("AnyConfig", bound=Config, covariant=True)


@dataclass(frozen=True)
class Run(Generic[AnyConfig]):
    """A finished run: its configuration, what its probes saw, and where it was made."""

    config: AnyConfig
    history: History
    provenance: dict[str, Any]

    @property
    def n_classes(self) -> int:
        """K of its data set.

        Older records do not hold it: then CIFAR-100 alone had another number of classes than ten.
        """
        by_name = 100 if self.config.dataset == "cifar100" else 10
        return int(self.history.metadata.get("n_classes", by_name))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run as JSON, atomically."""
        record = {
            "format": RUN_FORMAT,
            "version": VERSION,
            "config": asdict(self.config),
            "provenance": self.provenance,
            "history": self.history.to_dict(),
        }
        write_json(path, record)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Run[Any]":
        """Read a run.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it is no regular file, or cannot be opened.
            ValueError: too large, not JSON, another version, or malformed; the file is named.
        """
        record = _read(path, RUN_FORMAT)
        try:
            config = config_from_dict(record["config"])
            history = History.from_dict(record["history"], "history")
            return Run(config, history, _object(record["provenance"], "provenance"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no sound run: {error!r}") from error


@dataclass(frozen=True)
class Sweep(Generic[AnyConfig]):
    """Finished runs on one data set, and the command that made them.

    Args:
        runs: at least one, in the order of the plan; at most one of each optimizer, method,
            learning rate and seed.
        command: the words after `calibcourse`, without the output folder.

    Raises:
        ValueError: no run, runs on several data sets, or a run that is there twice.
    """

    runs: tuple[Run[AnyConfig], ...]
    command: str = ""

    def __post_init__(self) -> None:
        datasets = sorted({run.config.dataset for run in self.runs})
        if len(datasets) != 1:
            found = ", ".join(datasets) or "no run"
            raise ValueError(f"runs must be of one data set, got {found}; make a sweep of each")
        places = Counter(
            (config.optimizer, config.label, config.lr, config.seed)
            for config in (run.config for run in self.runs)
        )
        for (optimizer, label, lr, seed), count in places.items():
            if count > 1:
                raise ValueError(
                    f"runs must be different, got {count} of {optimizer}, {label}, learning rate "
                    f"{lr:g}, seed {seed}: no spread over seeds could be told"
                )

    @property
    def labels(self) -> list[str]:
        """What the runs are called in figures and tables, in their order."""
        return list(dict.fromkeys(run.config.label for run in self.runs))

    @property
    def optimizers(self) -> list[str]:
        """The optimizers, by their names for `make_optimizer`, in the order of the runs."""
        return list(dict.fromkeys(run.config.optimizer for run in self.runs))

    def select(self, **criteria: Any) -> "Sweep[AnyConfig]":
        """The runs whose configuration has these values, such as optimizer="gd", lr=0.1.

        Raises:
            ValueError: no run is like that; the error says which values there are.
        """
        names = {"label", *(f.name for f in fields(self.runs[0].config))}
        for name in criteria:
            check_choice(name, "a criterion", names)
        chosen = tuple(
            run
            for run in self.runs
            if all(getattr(run.config, name) == value for name, value in criteria.items())
        )
        if not chosen:
            there = {n: sorted({str(getattr(r.config, n)) for r in self.runs}) for n in criteria}
            raise ValueError(f"no run has {criteria}; there are {there}")
        return Sweep(chosen, self.command)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sweep as JSON, small: columns instead of rows, five significant digits."""
        record = {
            "format": SWEEP_FORMAT,
            "version": VERSION,
            "command": self.command,
            "runs": [
                {
                    "config": asdict(run.config),
                    "provenance": run.provenance,
                    "n_classes": run.n_classes,
                    "diverged_at": run.history.diverged_at,
                    "columns": {n: _rounded(run.history.column(n)) for n in run.history.columns},
                }
                for run in self.runs
            ],
        }
        write_json(path, record, indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Sweep[Any]":
        """Read a sweep.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it is no regular file, or cannot be opened.
            ValueError: too large, not JSON, another version, or malformed; the file is named.
        """
        record = _read(path, SWEEP_FORMAT)
        try:
            command = record["command"]
            if not isinstance(command, str):
                raise TypeError(f"command must be a text, got {type(command).__name__}")
            return Sweep(tuple(_run(entry) for entry in record["runs"]), command)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is no sound sweep: {error!r}") from error

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        return f"Sweep({len(self)} runs: {', '.join(self.labels)})"


def load_recorded(name: str = "fashion_mnist_small") -> Sweep[Any]:
    """A sweep that was really run and is shipped with the package.

    Raises:
        ValueError: none of that name; the error lists those there are.
    """
    folder = Path(__file__).with_name("recorded")
    check_choice(name, "name", [path.stem for path in folder.glob("*.json")])
    return Sweep.load(folder / f"{name}.json")


def config_from_dict(record: Any) -> Config:
    """A configuration of whichever kind has these fields.

    Raises:
        ValueError, TypeError: as `Config.from_dict`.
    """
    told_by: dict[str, type[Config]] = {"shift_seed": ShiftConfig, "loss": ComparisonConfig}
    fields_there = record if isinstance(record, dict) else {}
    kinds = (kind for name, kind in told_by.items() if name in fields_there)
    return next(kinds, TrajectoryConfig).from_dict(record)


def _read(path: str | os.PathLike[str], wanted: str) -> dict[str, Any]:
    record = read_json(path)
    found = (record.get("format"), record.get("version")) if isinstance(record, dict) else None
    if found != (wanted, VERSION):
        raise ValueError(
            f"{path} must be a {wanted} of version {VERSION}, got {found}; "
            "choose another output folder, or delete the file to run it again"
        )
    return dict(record)


def _run(entry: dict[str, Any]) -> Run[Config]:
    """One run of a saved sweep; whatever is wrong with it raises something."""
    columns = entry["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    metadata = {}
    if "n_classes" in entry:  # older records do not hold it
        check_integer(entry["n_classes"], "n_classes", 2)
        metadata["n_classes"] = entry["n_classes"]
    history = History([], metadata, entry["diverged_at"]).to_dict() | {"rows": rows}
    return Run(
        config_from_dict(entry["config"]),
        History.from_dict(history),
        _object(entry["provenance"], "provenance"),
    )


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be an object, got {type(value).__name__}")
    return value


def _rounded(values: "np.ndarray[Any, Any]") -> list[float | None]:
    if values.dtype == np.int64:
        return list(values.tolist())
    return [float(f"{v:.{DIGITS}g}") if math.isfinite(v) else None for v in values.tolist()]
