"""Many runs as independent jobs: any Executor runs them, a kill loses only what is in flight.

A finished run is one file, runs/<key>.json, written atomically by the job itself; a job
that finds its file returns at once. A run in flight keeps a checkpoint beside it and goes on from
there. So starting the same command again is how a sweep resumes, whatever stopped it. A stack of
runs is one job, with a record and a checkpoint for each of its runs.
"""

import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from .._checks import check_integer
from .._files import check_writable
from .configs import ComparisonConfig, Config, TrajectoryConfig
from .one_run import check_data, step_seconds, threads, train
from .records import Run
from .stacked import stacks, train_stacked

RECORDS, CHECKPOINTS = "runs", "checkpoints"
PACKAGES = ("calibcourse", "torch", "numpy")

# torch's random state and number of threads belong to the process: one run at a time in each.
_ONE_AT_A_TIME = threading.Lock()


def run_one(config: Config, folder: str | os.PathLike[str]) -> str:
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
                if isinstance(config, ComparisonConfig):
                    made["seconds_per_step"] = step_seconds(config)
            Run(config, history, made).save(record)
        checkpoint.unlink(missing_ok=True)
    return str(record)


def run_stack(configs: Sequence[Config], folder: str | os.PathLike[str]) -> dict[str, Exception]:
    """Train configurations together and write the record of each, as `run_one` does for one.

    Args:
        configs: one of the groups of `stacks`, none of which has a record yet.
        folder: as for `run_one`.

    Returns:
        The errors of those that could not start, by their keys. A record says in its provenance
        how many runs it was "stacked" with, and its own share of the seconds.
    """
    checkpoints = [Path(folder) / CHECKPOINTS / f"{config.key}.pt" for config in configs]
    errors: dict[str, Exception] = {}
    with _ONE_AT_A_TIME, threads(configs[0].threads):
        resumed = [checkpoint.exists() for checkpoint in checkpoints]
        start = time.perf_counter()
        trajectories = [config for config in configs if isinstance(config, TrajectoryConfig)]
        outcomes = train_stacked(trajectories, checkpoints)
        seconds = round((time.perf_counter() - start) / len(configs), 1)
        made = provenance() | {"seconds": seconds, "stacked": len(configs)}
        for place, (config, outcome) in enumerate(zip(configs, outcomes, strict=True)):
            if isinstance(outcome, Exception):
                errors[config.key] = outcome
                continue
            run = Run(config, outcome, made | {"resumed": resumed[place]})
            run.save(record_path(folder, config))
            checkpoints[place].unlink(missing_ok=True)
    return errors


class SweepError(RuntimeError):
    """Some runs of a sweep failed; the message names them, the finished ones are kept."""


def run_all(
    configs: Sequence[Config],
    folder: str | os.PathLike[str],
    executor: Executor | None = None,
    progress: bool = True,
    stacked: bool = False,
) -> list[Run[Any]]:
    """Run every configuration that has no record yet, and return them all.

    What would stop a run, or would stop the reading of the records at the end, is looked for before
    the first run starts.

    Args:
        configs: the runs, all different.
        folder: where records and checkpoints go; every worker must see it under this path.
        executor: anything with the submit of concurrent.futures; None runs the jobs here.
        progress: show a bar, one tick per run.
        stacked: train together what differs in seed and learning rate only (see `stacks`): one job
            for each stack. Numbers then agree with those of single runs within rounding.

    Returns:
        The runs in the order of `configs`.

    Raises:
        OSError: the folder cannot be written; the data set is not there.
        ValueError: a configuration is there twice; a record of another version or run lies in the
            folder; the data set has fewer images than a configuration asks for.
        SweepError: runs failed, after all others were finished.
    """
    folder = Path(folder).resolve()
    twice = [key for key, count in Counter(config.key for config in configs).items() if count > 1]
    if twice:
        raise ValueError(f"configs must all be different, got twice: {', '.join(twice)}")
    found = {c.key: _load(folder, c) for c in configs if record_path(folder, c).exists()}
    todo = {config.key: config for config in configs if config.key not in found}
    executor = InProcess() if executor is None else executor
    if todo:
        _prepare(folder)
        executor.submit(check_data, list(todo.values())).result()
    with tqdm(total=len(configs), initial=len(found), disable=not progress, unit="run") as bar:
        jobs: list[tuple[list[str], Future[Any]]] = []
        for stack in stacks(list(todo.values())) if stacked else [[c] for c in todo.values()]:
            if len(stack) == 1:
                job: Future[Any] = executor.submit(run_one, stack[0], str(folder))
            else:
                job = executor.submit(run_stack, stack, str(folder))
            job.add_done_callback(partial(_tick, bar, len(stack)))
            jobs.append(([config.key for config in stack], job))
        wait([job for _, job in jobs])
    errors: dict[str, BaseException] = {}
    for keys, job in jobs:
        if (error := job.exception()) is not None:
            errors |= dict.fromkeys(keys, error)
        elif len(keys) > 1:
            errors |= job.result()
    for key, config in todo.items():
        if key not in errors and not record_path(folder, config).exists():
            errors[key] = OSError(f"its worker wrote to another {folder} than this machine's")
    if errors:
        lines = "\n".join(f"  {key}: {type(e).__name__}: {e}" for key, e in errors.items())
        raise SweepError(
            f"{len(errors)} of {len(configs)} runs failed; the others are kept, and the same "
            f"command again tries only these:\n{lines}"
        )
    found |= {key: _load(folder, config) for key, config in todo.items()}
    return [found[config.key] for config in configs]


def _tick(bar: Any, runs: int, _: Future[Any]) -> None:
    """Let the bar move by the runs of a job that is done."""
    bar.update(runs)


def record_path(folder: str | os.PathLike[str], config: Config) -> Path:
    """Where the record of a finished run lies."""
    return Path(folder) / RECORDS / f"{config.key}.json"


def _load(folder: Path, config: Config) -> Run[Any]:
    """The record of a configuration, after making sure that it is of this one."""
    path = record_path(folder, config)
    run = Run.load(path)
    if run.config.key != config.key:  # the key: JSON makes lists of an option's tuples
        raise ValueError(
            f"{path} must be the record of {config.key}, got that of {run.config.key}; "
            "delete the file to run it again"
        )
    return run


class InProcess(Executor):
    """The plainest executor: submit runs the job at once, in this thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the job and return a future that holds its result or its error."""
        future: Future[Any] = Future()
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
        ValueError, TypeError: workers is no positive integer; both are asked for; Dask is not
            installed.
        OSError: nothing answers at the address.
    """
    check_integer(workers, "workers", 1)
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
    with Client(address, timeout="5s") as client:  # type: ignore[no-untyped-call]
        yield client.get_executor()


def _die_with_parent() -> None:
    """In a worker process: end when the parent is killed, instead of waiting for work for ever."""
    parent = parent_process()
    assert parent is not None, "this process is no worker"

    def watch() -> None:
        parent.join()
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
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
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
