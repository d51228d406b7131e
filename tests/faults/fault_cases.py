"""What the tests of faults write, train and mount: small, and what is written known by a number."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_fuzz import (
    CONFIG,
    PROVENANCE,
)
from torch import nn

from calibcourse import _files
from calibcourse.exercises import all_exercises, store
from calibcourse.history import History
from calibcourse.reproduce import Run, Sweep, TrajectoryConfig
from calibcourse.training import fit

FULL = "No space left on device|File too large"  # a full disk; a limit on the size of a file
TINY = TrajectoryConfig(
    dataset="fashion_mnist_small",
    optimizer="sgd",
    lr=0.1,
    steps=8,
    batch_size=16,
    train_samples=40,
    held_out_samples=30,
    hidden=(6,),
    even_probes=3,
)
EXERCISE = next(exercise for exercise in all_exercises() if exercise.key == "01/ece")


def litter(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*.tmp"))


def let_a_minute_pass(folder: Path) -> None:
    for name in litter(folder):
        then = time.time() - _files.ABANDONED_SECONDS - 1
        os.utime(folder / name, (then, then))


DATA = SimpleNamespace(name="toy", train=SimpleNamespace(inputs=torch.eye(40)))
DATA.train.target = torch.arange(40) % 3
DATA.to = lambda device: DATA
BIG = 60  # units of the hidden layer: a checkpoint of more than 20 kB


def norm(model: nn.Module, data: object) -> dict[str, float]:
    return {"norm": float(sum(p.detach().square().sum() for p in model.parameters()))}


def quiet_fit(checkpoint: Path | None, steps: int = 6, probe: Callable = norm) -> History:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, BIG), nn.Tanh(), nn.Linear(BIG, 3))
    return fit(
        model,
        DATA,
        lr=0.1,
        steps=steps,
        batch_size=16,
        probes=[probe],
        probe_steps=list(range(steps + 1)),
        checkpoint=checkpoint,
        progress=False,
    )


class Interrupted(Exception):
    pass


def half_finished(path: Path) -> bytes:
    """The checkpoint of a run of `quiet_fit` that was stopped at its fourth row."""
    rows = iter(range(3))

    def half_way(model: nn.Module, data: object) -> dict[str, float]:
        if next(rows, None) is None:
            raise Interrupted
        return norm(model, data)

    with pytest.raises(Interrupted):
        quiet_fit(path, probe=half_way)
    return path.read_bytes()


N_ROWS = 3000


def some_history(number: int) -> History:
    """100 kB that are all of one writing."""
    return History([{"step": i, "x": number} for i in range(N_ROWS)])


def number_of(history: History) -> int:
    (number,) = set(history.column("x"))
    assert len(history) == N_ROWS
    return int(number)


def write_progress(path: Path, number: int) -> None:
    os.environ["CALIBCOURSE_PROGRESS"] = str(path)
    assert store.record_attempt("01/ece", "incorrect") is None


WRITERS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], int]]] = {
    "progress": (write_progress, lambda path: store.load(path)["01/ece"].attempts),
    "history": (
        lambda path, number: some_history(number).save(path),
        lambda path: number_of(History.load(path)),
    ),
    "run": (
        lambda path, number: Run(CONFIG, some_history(number), PROVENANCE).save(path),
        lambda path: number_of(Run.load(path).history),
    ),
    "sweep": (
        lambda path, number: Sweep((Run(CONFIG, some_history(number), {}),)).save(path),
        lambda path: number_of(Sweep.load(path).runs[0].history),
    ),
}


@contextmanager
def mounted(folder: Path, kilobytes: int) -> Iterator[None]:
    """A small disk in memory on a folder; skips where mounting is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount).returncode:
        pytest.skip("mounting a small disk needs Linux and its administrator")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
