"""Many runs as independent jobs: any Executor runs them, a kill loses only what is in flight.

A finished run is one file, runs/<key>.json, written atomically by the job itself; a job
that finds its file returns at once. A run in flight keeps a checkpoint beside it and goes on from
there. So starting the same command again is how a sweep resumes, whatever stopped it.
"""

import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from .._files import check_writable, read_json, shortened, write_json
from ..history import History
from .configs import Config, RunConfig
from .jobs import step_seconds, threads, train
from .methods import MethodConfig

FORMAT = "calibcourse.run"
VERSION = 1
RECORDS, CHECKPOINTS = "runs", "checkpoints"
PACKAGES = ("calibcourse", "torch", "numpy", "pytorch-optimizer")
# What a file may say of a run: more would fill the memory as soon as its steps are listed.
MAX_NUMBER, MAX_PROBES = 10**9, 10**5
_FILE_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,200}")

# torch's random state and number of threads belong to the process: one run at a time in each.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Run:
    """A finished run: its configuration, what its probes saw, and where it was made."""

    config: Config
    history: History
    provenance: dict[str, Any]

    def save(self, path: str | os.PathLike) -> None:
        """Write the run as JSON, atomically."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "config": asdict(self.config),
            "provenance": self.provenance,
            "history": self.history.to_dict(),
        }
        write_json(path, record)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Run":
        """Read a run; the file is treated as hostile.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it is no regular file, or cannot be opened.
            ValueError: not JSON, another version, or malformed; the file is named.
        """
        record = read_json(path)
        found = (record.get("format"), record.get("version")) if isinstance(record, dict) else None
        if found != (FORMAT, VERSION):
            raise ValueError(
                f"{path} must be a {FORMAT} of version {VERSION}, got {shortened(found)}; "
                "choose another output folder, or delete the file to run it again"
            )
        try:
            config = config_from_dict(record.get("config"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {shortened(error)}") from error
        provenance = record.get("provenance")
        if not isinstance(provenance, dict):
            raise ValueError(f"{path}: provenance must be an object")
        return cls(config, History.from_dict(record.get("history"), str(path)), provenance)


def config_from_dict(record: Any) -> Config:
    """A configuration of whichever kind has these fields.

    Raises:
        ValueError, TypeError: as `Config.from_dict`; a number that no run has; a configuration
            whose key is no file name.
    """
    is_method = isinstance(record, dict) and "loss" in record
    config = (MethodConfig if is_method else RunConfig).from_dict(record)
    for name, value in record.items():
        largest = MAX_PROBES if "probes" in name else MAX_NUMBER
        if isinstance(value, int) and value > largest:
            raise ValueError(f"{name} must be at most {largest}")
    try:
        key = config.key
    except (ArithmeticError, LookupError, RecursionError) as error:
        raise ValueError(f"its options make no key: {error!r}") from error
    if not _FILE_NAME.fullmatch(key):
        raise ValueError(f"its key must be a file name, got {key!r}")
    return config


def run_one(config: Config, folder: str | os.PathLike) -> str:
    """Train one configuration and write its record, unless the record is there.

    Args:
        config: the run.
        folder: the sweep's folder, the same for all of its jobs wherever they run.

    Returns:
        The path of the record.
    """
    record = record_path(folder, config)
    checkpoint = Path(folder) / CHECKPOINTS / f"{config.key}.pt"
    with _ONE_AT_A_TIME:
        if not record.exists():
            resumed, start = checkpoint.exists(), time.perf_counter()
            with threads(config.threads):
                history = train(config, checkpoint)
                seconds = round(time.perf_counter() - start, 1)
                made = provenance() | {"seconds": seconds, "resumed": resumed}
                if isinstance(config, MethodConfig):
                    made["seconds_per_step"] = step_seconds(config)
            Run(config, history, made).save(record)
        checkpoint.unlink(missing_ok=True)
    return str(record)


class SweepError(RuntimeError):
    """Some runs of a sweep failed; the message names them, the finished ones are kept."""


def sweep(
    configs: Sequence[Config],
    folder: str | os.PathLike,
    executor: Executor | None = None,
    progress: bool = True,
) -> list[Run]:
    """Run every configuration that has no record yet, and return them all.

    Args:
        configs: the runs; duplicates are run once.
        folder: where records and checkpoints go; every worker must see it under this path.
        executor: anything with the submit of concurrent.futures; None runs the jobs here.
        progress: show a bar, one tick per run.

    Returns:
        The runs in the order of `configs`.

    Raises:
        OSError: the folder cannot be written.
        ValueError: a record of another version lies there.
        SweepError: runs failed, after all others were finished.
    """
    folder = Path(folder).resolve()
    todo = {c.key: c for c in configs if not record_path(folder, c).exists()}
    if todo:
        _prepare(folder)
    n_runs = len({c.key for c in configs})
    executor = InProcess() if executor is None else executor
    with tqdm(total=n_runs, initial=n_runs - len(todo), disable=not progress, unit="run") as bar:
        futures: dict[str, Future] = {}
        for key, config in todo.items():
            futures[key] = executor.submit(run_one, config, str(folder))
            futures[key].add_done_callback(lambda _: bar.update())
        wait(futures.values())
    errors = {key: future.exception() for key, future in futures.items() if future.exception()}
    for key, config in todo.items():
        if key not in errors and not record_path(folder, config).exists():
            errors[key] = OSError(f"its worker wrote to another {folder} than this machine's")
    if errors:
        lines = "\n".join(f"  {key}: {type(e).__name__}: {e}" for key, e in errors.items())
        raise SweepError(
            f"{len(errors)} of {n_runs} runs failed; the others are kept, and the same command "
            f"again tries only these:\n{lines}"
        )
    return [Run.load(record_path(folder, config)) for config in configs]


def record_path(folder: str | os.PathLike, config: Config) -> Path:
    """Where the record of a finished run lies."""
    return Path(folder) / RECORDS / f"{config.key}.json"


class InProcess(Executor):
    """The plainest executor: submit runs the job at once, in this thread."""

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # kept for the caller of result(), as every executor does
            future.set_exception(error)
        return future


@contextmanager
def executor_for(workers: int = 1, scheduler: str | None = None) -> Iterator[Executor]:
    """The executor that the command line asks for.

    Args:
        workers: 1 runs in this process; more start as many processes.
        scheduler: address of a running Dask scheduler, such as tcp://127.0.0.1:8786. A job whose
            worker dies is taken up by another.

    Raises:
        ValueError: both are asked for, or Dask is not installed.
        OSError: nothing answers at the address.
    """
    if scheduler is not None:
        if workers != 1:
            raise ValueError("workers and scheduler exclude each other: the scheduler has workers")
        with _dask(scheduler) as executor:
            yield executor
    elif workers == 1:
        yield InProcess()
    else:
        # Spawned, not forked: torch's threads do not survive a fork.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_die_with_parent)
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError(
            "scheduler needs Dask, which is not installed: pip install 'calibcourse[cluster]'"
        ) from error
    with Client(address, timeout="5s") as client:
        yield client.get_executor()


def _die_with_parent() -> None:
    """In a worker process: end when the parent is killed, instead of waiting for work for ever."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def provenance() -> dict[str, Any]:
    """What made a record: versions, machine and date; no name of a host, user or folder."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's name; Linux tells it only in /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _prepare(folder: Path) -> None:
    """Make the folders, try to write there, and clear away what killed writers left."""
    for name in (RECORDS, CHECKPOINTS):
        try:
            (folder / name).mkdir(parents=True, exist_ok=True)
            check_writable(folder / name / "a-file")
        except OSError as error:
            raise OSError(f"cannot write to the output folder {folder}: {error}") from error
        for litter in (folder / name).glob(".*.tmp"):
            litter.unlink(missing_ok=True)
