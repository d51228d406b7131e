"""Readers of files that anybody may have written: 75,000 broken and hostile ones, none a surprise.

By default the first twentieth of them is read, with `-m slow` the rest.

A file is refused with the documented error, short and with the file's name, or what it gives can be
used. Inputs grow from valid documents: of JSON one value, key or branch changes; of anything, bytes
do. Each is a function of SEED, the reader's name and its index alone, so a failure's message is all
that is needed to see it again: `make_input(TARGETS["history"], 1234)`.
"""

import gzip
import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import (
    HOLE,
    HOSTILE,
    mutate_bytes,
    mutate_checkpoint,
    mutate_gzip,
    mutate_json,
    nodes,
)
from torch import nn

from calibcourse import training
from calibcourse._conduct import random_state_restored
from calibcourse.audit import read_logits
from calibcourse.course.bootstrap import ADDRESS_FILE, parse_address, read_address
from calibcourse.course.class_predictions import predictions_section
from calibcourse.course.progress import progress_rows, progress_table
from calibcourse.data._verified import read_idx
from calibcourse.exercises import all_exercises, all_predictions, store
from calibcourse.exercises._guess import Guess
from calibcourse.history import History
from calibcourse.reproduce import TrajectoryConfig

SEED = 20260414
LONGEST_MESSAGE = 1500  # characters, the file's path included

# torch warns of the strange checkpoints that it is given here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# ------------------------------------------------------------------------------ valid documents

CONFIG = TrajectoryConfig(
    dataset="mnist",
    optimizer="bulk_sgd",
    lr=0.1,
    steps=24,
    batch_size=None,
    train_samples=40,
    held_out_samples=30,
    options={"directions": 3},
)
HISTORY = History(
    [{"step": 0, "train_ece": 0.25, "sharpness": 1e-3}, {"step": 7, "train_ece": float("nan")}],
    {"seed": 0, "lr": 0.1, "loss": {"name": "CrossEntropy"}, "groups": [{"lr": 0.1}]},
    9,
)
PROVENANCE = {"date": "2026-01-01", "torch": "2.13.0", "seconds": 1.5, "cores": 2}
RECORD = store.Record().attempted("correct", "2026-01-02T03:04:05Z")
IDX = struct.pack(">HBBI", 0, 8, 1, 12) + bytes(range(12))


def saved(save: Callable[[Path], Any], tmp: Path) -> bytes:
    save(tmp)
    return tmp.read_bytes()


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


PROGRESS = {
    "version": store.VERSION,
    "exercises": {"01/ece": vars(RECORD), "42/retired": vars(replace(RECORD, first_correct=None))},
    "predictions": {
        "01/predicted_accuracy": vars(Guess(95.0, 0.8).with_truth(82.7, "2026-01-02T03:04:05Z"))
        | {"answered": "2026-01-02T03:04:05Z"},
        "42/retired": vars(Guess().with_truth("by more", "2026-01-02T03:04:05Z")),
    },
}
SINCE_VERSION_2 = ("mistakes", "answers", "attempts_until_correct")
OLD_PROGRESS = {
    "version": 1,
    "exercises": {"01/ece": {k: v for k, v in vars(RECORD).items() if k not in SINCE_VERSION_2}},
}
ADDRESS = {"repo": "https://github.com/ada/course", "ref": "v1.0"}


def logits_files() -> list[bytes]:
    """As numpy writes them, plain and packed."""
    arrays = {"logits": 4 * np.eye(4, 3, dtype=np.float32), "target": np.arange(4) % 3}
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, **arrays)
    np.savez_compressed(packed, **arrays)
    return [plain.getvalue(), packed.getvalue()]


def toy_run(path: Path, steps: int = 2) -> tuple[training._Run, set[int]]:
    """A tiny run that has been saved to a file, as `fit` saves it."""
    train = SimpleNamespace(inputs=torch.eye(3), target=torch.arange(3))
    data = SimpleNamespace(name="toy", train=train)
    data.to = lambda device: data
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    run = training._Run(model, data, optimizer, [], {"steps": steps})
    run.keep(path, {0, steps})
    return run, {0, steps}


def resumed(path: Path) -> training._Run:
    """Read a checkpoint as `fit` does."""
    with random_state_restored():
        return toy_run(path)[0]


# ------------------------------------------------------------------------------ what is fuzzed


@dataclass(frozen=True)
class Target:
    """One reader: valid files, how a file is read, the errors it documents, and what use is made.

    Args:
        name: of the target.
        seeds: valid contents; a function, called once with a scratch file.
        read: called with the path of a file.
        use: called with what was read; must not raise.
        errors: documented.
        count: of inputs.
        mutate: from a random generator and a seed to an input.
        file: name or relative path of the file; `read` gets its path.
    """

    name: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], Any]
    use: Callable[[Any], None]
    errors: tuple[type[Exception], ...] = (ValueError,)
    count: int = 18_000
    mutate: Callable[[random.Random, bytes], bytes] | None = None
    file: str = "theirs"


def use_history(history: History) -> None:
    repr(history)
    for column in history.columns:
        history.column(column)
    json.dumps(history.to_dict(), allow_nan=False)  # it can be saved again


def use_progress(progress: tuple[dict[str, store.Record], dict[str, Guess]]) -> None:
    records, guesses = progress
    for guess in guesses.values():
        assert 0 <= (guess.sure or 0) <= 1
        json.dumps(vars(guess.with_answer(1.0, 0.5, "x").with_truth(2.0, "x")), allow_nan=False)
    "".join(predictions_section(all_predictions(), [guesses])).encode()
    progress_table(progress_rows(all_exercises(), records)).encode()
    for record in records.values():
        again = record.attempted("incorrect", "2026-01-02T03:04:05Z")
        assert again.attempts == record.attempts + 1
        json.dumps(vars(again))


def use_bytes(values: torch.Tensor) -> None:
    assert values.shape == (12,) and values.dtype == torch.uint8


def use_checkpoint(run: training._Run) -> None:
    use_history(run.history())
    assert 0 <= run.step <= 2
    run.optimizer.zero_grad()


def json_seeds(*documents: Any) -> Callable[[Path], list[bytes]]:
    return lambda tmp: [json_bytes(document) for document in documents]


def saved_by(*saves: Callable[[Path], Any]) -> Callable[[Path], list[bytes]]:
    return lambda tmp: [saved(save, tmp) for save in saves]


# One line per reader; `read`, `use` and the seeds are all that a new one needs.
TARGETS = {
    target.name: target
    for target in (
        Target("progress", json_seeds(PROGRESS, OLD_PROGRESS), store.read_progress, use_progress,
               (store.UnreadableProgress,)),
        Target("history", saved_by(HISTORY.save), History.load, use_history),
        Target("address", json_seeds(ADDRESS), lambda path: read_address(path.parents[2]),
               lambda a: parse_address(a.repo, a.ref).badges("x"), file=str(ADDRESS_FILE)),
        Target("idx", lambda tmp: [IDX], lambda path: read_idx(path, (12,)), use_bytes,
               count=8_000),
        Target("idx.gz", lambda tmp: [gzip.compress(IDX, mtime=0)],
               lambda path: read_idx(path.with_suffix(""), (12,)), use_bytes, count=6_000,
               mutate=lambda chance, seed: mutate_gzip(chance, seed), file="theirs.gz"),
        Target("logits", lambda tmp: logits_files(), read_logits, lambda pair: sum(map(len, pair)),
               count=6_000, file="theirs.npz"),
        Target("checkpoint", saved_by(lambda path: toy_run(path)[0].save()), resumed,
               use_checkpoint, count=1_500,
               mutate=lambda chance, seed: mutate_checkpoint(chance, seed)),
    )
}  # fmt: skip

# ------------------------------------------------------------------------------ the fuzzer

_seeds: dict[str, list[bytes]] = {}


def seeds_of(target: Target, folder: Path) -> list[bytes]:
    if target.name not in _seeds:
        folder.mkdir(exist_ok=True)
        _seeds[target.name] = target.seeds(folder / "seed")
    return _seeds[target.name]


def make_input(target: Target, index: int, folder: Path = Path()) -> bytes:
    """Input number `index` of a target."""
    chance = random.Random(f"{SEED}/{target.name}/{index}")
    seed = chance.choice(seeds_of(target, folder))
    if target.mutate is not None:
        return target.mutate(chance, seed)
    is_json = seed.startswith(b"{")
    return (mutate_json if is_json and chance.random() < 0.7 else mutate_bytes)(chance, seed)


def outcome(target: Target, path: Path, content: bytes, which: str) -> bool:
    """Whether a content is accepted; anything but acceptance and refusal fails the test."""
    path.unlink(missing_ok=True)  # a file written over is flushed to the disk, which takes long
    path.write_bytes(content)
    try:
        result = target.read(path)
    except target.errors as error:
        named = path.name in str(error) or isinstance(error, store.UnreadableProgress)
        if not named or len(str(error)) > LONGEST_MESSAGE:
            pytest.fail(f"{which}: a message without the file or too long: {error!r:.3000}")
        return False
    except BaseException as error:
        raise AssertionError(f"{which} raised {error!r:.300}; bytes: {content!r:.3000}") from error
    try:
        target.use(result)
    except Exception as error:
        raise AssertionError(
            f"{which} was accepted, then raised {error!r:.300}; bytes: {content!r:.3000}"
        ) from error
    return True


@pytest.fixture
def file_of(tmp_path):
    """A function from a target to the path where its reader looks."""

    def path(target: Target) -> Path:
        path = tmp_path / target.file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    return path


def test_there_are_seventy_five_thousand_inputs():
    assert sum(target.count for target in TARGETS.values()) >= 75_000


@pytest.mark.parametrize("first, last", [(0, 0.05), pytest.param(0.05, 1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files_are_read_or_refused(name, first, last, file_of, tmp_path):
    target = TARGETS[name]
    path = file_of(target)
    accepted, indices = 0, range(round(first * target.count), round(last * target.count))
    for index in indices:
        content = make_input(target, index, tmp_path / "seeds")
        accepted += outcome(target, path, content, f"{name}, input {index} of seed {SEED}")
    # Some inputs are accepted and some refused: both paths are tested.
    assert 0.01 * len(indices) < accepted < 0.95 * len(indices)


@pytest.mark.parametrize("most", [50, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TARGETS)
def test_truncations_and_changed_bytes_are_read_or_refused(name, most, file_of, tmp_path):
    target, chance = TARGETS[name], random.Random(SEED)
    path = file_of(target)
    for seed in seeds_of(target, tmp_path / "seeds"):
        assert outcome(target, path, seed, f"{name}, a valid file")
        step = max(1, len(seed) // most)  # of a large file every so many
        for length in range(0, len(seed), step):
            whole = outcome(target, path, seed[:length], f"{name}, cut to {length} bytes")
            assert not whole or not seed[length:].strip(), "a part was taken for the whole"
        for at in range(0, len(seed), step):
            changed = bytearray(seed)
            changed[at] ^= chance.randrange(1, 256)
            outcome(target, path, bytes(changed), f"{name}, byte {at} made {changed[at]}")


JSON_TARGETS = ("progress", "history", "address")


@pytest.mark.parametrize("name", JSON_TARGETS)
def test_every_place_holds_every_hostile_value(name, file_of, tmp_path):
    target = TARGETS[name]
    path = file_of(target)
    for seed in seeds_of(target, tmp_path / "seeds"):
        document = json.loads(seed)
        for container, key in nodes(document):
            before, container[key] = container[key], HOLE
            text = json.dumps(document)
            container[key] = before
            for value in HOSTILE:
                content = text.replace(json.dumps(HOLE), value).encode()
                outcome(target, path, content, f"{name}, {value:.40} as {key}")


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=50)
@given(data=st.data())
def test_small_files_are_read_or_refused(name, data, tmp_path_factory):
    """Random bytes and JSON of any shape; what fails here hypothesis makes small."""
    target = TARGETS[name]
    path = tmp_path_factory.getbasetemp() / "small" / target.file
    path.parent.mkdir(parents=True, exist_ok=True)
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    documents = st.recursive(scalars, lambda s: st.lists(s) | st.dictionaries(st.text(), s))
    content = data.draw(st.binary() | documents.map(lambda d: json.dumps(d).encode()))
    outcome(target, path, content, f"{name}, {content!r}")
