"""Hostile content that the fuzzer does not reach: huge words, foreign keys, changed bits, bombs.

Truncations, changed bytes and hostile values in every place are in test_fuzz.py.
"""

import json
import os
import pickle
import random
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from fault_cases import (
    BIG,
    DATA,
    half_finished,
    norm,
    quiet_fit,
)
from mutations import nodes, with_pickle
from test_fuzz import (
    CONFIG,
    HISTORY,
    JSON_TARGETS,
    PROVENANCE,
    TARGETS,
    outcome,
    resumed,
    toy_run,
)
from torch import nn

from calibcourse import training
from calibcourse._files import write_atomically
from calibcourse.course.bootstrap import read_address
from calibcourse.data._verified import read_verified
from calibcourse.history import History
from calibcourse.reproduce import Run
from calibcourse.training import fit

pytestmark = pytest.mark.usefixtures("impatience")


@pytest.mark.parametrize("name", JSON_TARGETS)
def test_words_of_ten_megabytes_are_not_quoted_in_full(name, tmp_path):
    target, chance = TARGETS[name], random.Random(name)
    path = tmp_path / target.file
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(target.seeds(tmp_path / "seed")[0])
    for container, key in chance.sample(nodes(document), min(8, len(nodes(document)))):
        before, container[key] = container[key], "x" * 10_000_000
        outcome(target, path, json.dumps(document).encode(), f"a huge {key}")
        container[key] = before


def test_a_broken_address_names_its_file(tmp_path):
    path = tmp_path / "calibcourse/course/published.json"
    for content in ('{"repo": 1, "ref": 2}', '{"repo": "https://github.com/a/b", "ref": "-"}'):
        write_atomically(path, content.encode())
        with pytest.raises(ValueError, match=r"published\.json: re"):
            read_address(tmp_path)


def test_a_key_of_a_foreign_configuration_stays_in_its_folder(tmp_path):
    path = tmp_path / "run.json"
    Run(CONFIG, HISTORY, PROVENANCE).save(path)
    record = json.loads(path.read_text())
    for options in ({"directions": "/../../x"}, {}, {"directions": "\ud800"}):
        record["config"]["options"] = options
        path.write_text(json.dumps(record))
        with pytest.raises(ValueError, match=r"run\.json"):
            Run.load(path)


def test_no_more_of_a_data_file_is_read_than_any_data_set_has(tmp_path):
    path = tmp_path / "data_batch_1"
    with path.open("wb") as stream:
        stream.truncate(2**33)  # 8 GB of nothing
    tracemalloc.start()
    with pytest.raises(ValueError, match="data_batch_1 is corrupt"):
        read_verified(path, "0" * 32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20


def state_of(run: training._Run) -> list:
    buffers = [s["momentum_buffer"] for s in run.optimizer.state_dict()["state"].values()]
    return [*(value.tolist() for value in run.model.state_dict().values()), run.step, buffers]


def test_a_changed_bit_of_a_checkpoint_is_never_used(tmp_path):
    path = tmp_path / "run.pt"
    run, _ = toy_run(path)
    with torch.no_grad():
        loss = run.model(torch.eye(3)).square().sum
    run.optimizer.step(lambda: loss().requires_grad_())
    run.probe()
    whole, expected = path.read_bytes(), state_of(resumed(path))
    refused = 0
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            assert state_of(resumed(path)) == expected  # the bit was in padding
        except ValueError as error:
            assert "run.pt" in str(error)
            refused += 1
    assert refused > len(whole) / 7 / 4


@pytest.mark.parametrize(
    "damage",
    [
        {"optimizer": {}},
        {"random": [torch.zeros(3)]},
        {"step": -1},
        {"step": 0.5},
        {"step": True},
        {"history": {**History([{"step": 2}]).to_dict()}, "step": 1},
        {"history": {**History([]).to_dict(), "rows": [{"step": 0, 5: 1.0}]}},
        {"version": torch.ones(2)},
        {"configuration": {"lr": torch.ones(2)}},
        {"configuration": [1]},
    ],
    ids=lambda damage: ",".join(damage),
)
def test_a_refused_checkpoint_leaves_the_model_as_it_was(damage, tmp_path):
    path = tmp_path / "run.pt"
    half_finished(path)
    state = torch.load(path, weights_only=True)
    state["model"] = {name: value + 1 for name, value in state["model"].items()}
    torch.save({**state, **damage}, path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, BIG), nn.Tanh(), nn.Linear(BIG, 3))
    before = [value.clone() for value in model.state_dict().values()]
    options = dict(lr=0.1, steps=6, batch_size=16, probes=[norm], probe_steps=list(range(7)))
    with pytest.raises(ValueError, match=r"checkpoint .*run\.pt"):
        fit(model, DATA, **options, checkpoint=path, progress=False)
    assert all(map(torch.equal, model.state_dict().values(), before))


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_a_bomb_in_a_checkpoint_is_neither_unpacked_nor_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.pt"
    archive = half_finished(path)
    path.write_bytes(with_pickle(archive, lambda content: content))
    quiet_fit(path)  # what is put together here is a checkpoint
    path.write_bytes(with_pickle(archive, lambda content: pickle.dumps(Bomb(), protocol=2)))
    with pytest.raises(ValueError, match=r"checkpoint .*run\.pt"):
        quiet_fit(path)
    assert not Path("exploded").exists()

    packed = with_pickle(
        archive, lambda content: content + bytes(20_000_000), compress_type=zipfile.ZIP_DEFLATED
    )
    assert len(packed) < 1_000_000
    path.write_bytes(packed)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch would unpack it"))
    with pytest.raises(ValueError, match=r"checkpoint .*run\.pt"):
        quiet_fit(path)
