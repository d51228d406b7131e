"""Records: what a run and a sweep keep, what they refuse, and that older files are still read."""

import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from calibcourse.data import Dataset, Split
from calibcourse.history import History
from calibcourse.models import mlp
from calibcourse.reproduce import Run, Sweep, TrajectoryConfig, load_recorded, plan, slack_table
from calibcourse.reproduce.records import config_from_dict
from calibcourse.training import fit

CONFIG = TrajectoryConfig(
    dataset="fashion_mnist_small", optimizer="sgd", lr=0.1, steps=4, batch_size=10,
    train_samples=20, held_out_samples=20,
)  # fmt: skip
HISTORY = History([{"step": 0, "train_ece": 0.5}, {"step": 4, "train_ece": math.nan}])

# As written before the number of classes was kept, and with the fields in their older order.
OLD_RUN = """{
 "format": "calibcourse.run", "version": 1,
 "config": {"dataset": "cifar10_small", "optimizer": "sgd", "lr": 0.028571428571428571,
  "steps": 6000, "batch_size": 100, "train_samples": 2000, "held_out_samples": 1600, "seed": 0,
  "options": {}, "hidden": [200, 200], "even_probes": 61, "log_probes": 21, "threads": 1,
  "device": "cpu"},
 "provenance": {"date": "2026-11-25", "torch": "2.13.0+cpu", "seconds": 1.5, "resumed": false},
 "history": {"format": "calibcourse.history", "version": 1,
  "metadata": {"optimizer": "sgd", "lr": 0.0286, "data": {"name": "cifar10_small"}},
  "diverged_at": null, "rows": [{"step": 0, "train_ece": 0.25}, {"step": 1, "train_ece": null}]}
}"""


def of(dataset: str, **changes) -> Run:
    return Run(replace(CONFIG, dataset=dataset, **changes), HISTORY, {"seconds": 1.0})


def test_a_run_of_before_is_read_and_keeps_its_key(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(OLD_RUN)
    run = Run.load(path)
    assert run.n_classes == 10 and len(run.history) == 2
    # Its key, of the version that wrote it: another one, and the run would not be found again.
    assert run.config.key == "cifar10_small-sgd-lr0.0285714-seed0-e75b6b87"


@pytest.mark.parametrize(
    ("dataset", "n_classes"), [("cifar100", 100), ("cifar10_small", 10), ("kmnist", 10)]
)
def test_without_a_number_of_classes_the_data_set_tells_it(dataset, n_classes, tmp_path):
    run = of(dataset)
    assert run.n_classes == n_classes
    Sweep((run,)).save(tmp_path / "new.json")
    record = json.loads((tmp_path / "new.json").read_text())
    assert record["runs"][0].pop("n_classes") == n_classes
    (tmp_path / "old.json").write_text(json.dumps(record))
    for name in ("new", "old"):
        assert Sweep.load(tmp_path / f"{name}.json").runs[0].n_classes == n_classes


def test_the_number_of_classes_is_written_down_by_the_training_itself(tmp_path):
    data = Dataset("three", ("a", "b", "c"), *(split(n) for n in (12, 6, 6)))
    history = fit(mlp((1, 4, 4), (5,), 3), data, lr=0.1, steps=1, progress=False)
    assert history.metadata["n_classes"] == 3
    run = Run(CONFIG, history, {})
    run.save(tmp_path / "run.json")
    Sweep((run,)).save(tmp_path / "sweep.json")
    assert Run.load(tmp_path / "run.json").n_classes == 3
    assert Sweep.load(tmp_path / "sweep.json").runs[0].n_classes == 3


def split(n: int) -> Split:
    import torch

    generator = torch.Generator().manual_seed(n)
    return Split(torch.rand(n, 1, 4, 4, generator=generator), torch.arange(n) % 3)


# A run that stopped, with numbers of more than five digits, and two that are none.
STOPPED = Run(
    CONFIG,
    History(
        [
            {"step": 0, "train_ece": 0.12345678},
            {"step": 1234567, "train_ece": math.nan, "sharpness": 98765.4321},
            {"step": 1234568, "train_ece": math.inf, "sharpness": 2.0},
        ],
        {"n_classes": 3, "lr": 0.1},
        diverged_at=1234569,
    ),
    {"torch": "2.13.0", "seconds": 1.5},
)


def test_a_run_keeps_everything_to_the_last_digit(tmp_path):
    path = tmp_path / "run.json"
    STOPPED.save(path)
    assert json.loads(path.read_text()) == {
        "format": "calibcourse.run",
        "version": 1,
        "config": asdict(CONFIG) | {"hidden": [200, 200]},  # JSON has no tuples
        "provenance": {"torch": "2.13.0", "seconds": 1.5},
        "history": STOPPED.history.to_dict(),
    }
    back = Run.load(path)
    assert back.config == CONFIG and back.provenance == STOPPED.provenance
    assert back.history.to_dict() == STOPPED.history.to_dict()


def test_a_sweep_keeps_columns_of_five_digits_and_whole_steps(tmp_path):
    path = tmp_path / "s.json"
    Sweep((STOPPED,), "reproduce table1").save(path)
    text = path.read_text()
    assert len(text.splitlines()) == 1  # no indentation: a sweep holds thousands of numbers
    assert json.loads(text) == {
        "format": "calibcourse.sweep",
        "version": 1,
        "command": "reproduce table1",
        "runs": [
            {
                "config": asdict(CONFIG) | {"hidden": [200, 200]},
                "provenance": {"torch": "2.13.0", "seconds": 1.5},
                "n_classes": 3,
                "diverged_at": 1234569,
                "columns": {
                    "step": [0, 1234567, 1234568],
                    "train_ece": [0.12346, None, None],
                    "sharpness": [None, 98765.0, 2.0],
                },
            }
        ],
    }
    back = Sweep.load(path)
    (run,) = back.runs
    assert repr(back) == "Sweep(1 runs: SGD)" and back.command == "reproduce table1"
    assert run.config == CONFIG and run.provenance == STOPPED.provenance
    assert (run.history.metadata, run.history.diverged_at) == ({"n_classes": 3}, 1234569)
    np.testing.assert_array_equal(run.history.column("step"), [0, 1234567, 1234568])
    np.testing.assert_array_equal(run.history.column("train_ece"), [0.12346, math.nan, math.nan])
    np.testing.assert_array_equal(run.history.column("sharpness"), [math.nan, 98765.0, 2.0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"version": 2},
            r"{path} must be a calibcourse\.run of version 1, got \('calibcourse\.run', 2\); "
            r"choose another output folder, or delete the file to run it again",
        ),
        ({"format": "x"}, r"{path} must be a calibcourse\.run of version 1, got \('x', 1\); "),
        ({"config": {}}, r"{path} is no sound run: ValueError.*exactly the fields"),
        ({"config": None}, r"{path} is no sound run: ValueError.*exactly the fields"),
        ({"history": {}}, r"{path} is no sound run: .*'history must be a calibcourse\.history of "),
        (
            {"provenance": None},
            r"{path} is .*TypeError\('provenance must be an object, got None",
        ),
    ],
)
def test_a_run_that_is_not_sound_is_refused_by_name(change, words, tmp_path):
    path = tmp_path / "run.json"
    STOPPED.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="^" + words.replace("{path}", re.escape(str(path)))):
        Run.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, r"{path} must be a calibcourse\.sweep of version 1, got \('calibco"),
        ({"command": 3}, r"{path} is no sound sweep: TypeError\('command must be a text, got int'"),
        ({"runs": 3}, r"{path} is no sound sweep: TypeError"),
        ({"runs": [3]}, r"{path} is no sound sweep: TypeError"),
        ({"diverged_at": -1}, r"{path} is .*diverged_at must be a step or null, got -1"),
        ({"columns": {"step": [4, 0]}}, r"{path} is no sound sweep: ValueError"),
        ({"columns": {"step": [0], "train_ece": "x"}}, r"{path} is no sound sweep: ValueError"),
        ({"config": {}}, r"{path} is no sound sweep: ValueError.*exactly the fields"),
        ({"columns": []}, r"{path} is no sound sweep: AttributeError"),
        (
            {"columns": {"step": [0, 1], "train_ece": [0.5]}},
            r"{path} is no sound sweep: ValueError",
        ),
        ({"n_classes": 1}, r"{path} is .*\('n_classes must be at least 2, got 1"),
        ({"provenance": 1}, r"{path} is .*TypeError\('provenance must be an object, got int'"),
    ],
)
def test_a_sweep_that_is_not_sound_is_refused_by_name(change, words, tmp_path):
    path = tmp_path / "s.json"
    Sweep((STOPPED,)).save(path)
    record = json.loads(path.read_text())
    (record if change.keys() <= record.keys() else record["runs"][0]).update(change)
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="^" + words.replace("{path}", re.escape(str(path)))):
        Sweep.load(path)


@pytest.mark.parametrize("kind", [Run, Sweep])
def test_what_is_no_record_at_all_is_refused_by_name(kind, tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"x\.json must be a calibcourse\.(run|sweep).*got None"):
        kind.load(tmp_path / "x.json")


def test_runs_are_selected_by_any_field_of_their_configuration():
    sweep = Sweep(
        tuple(of("mnist", lr=lr, seed=seed) for lr in (0.1, 0.2) for seed in (0, 1)), "reproduce it"
    )
    chosen = sweep.select(lr=0.2, seed=1, label="SGD")
    assert chosen.runs == sweep.runs[3:] and chosen.command == "reproduce it"
    assert repr(sweep.select(seed=0)) == "Sweep(2 runs: SGD)"
    with pytest.raises(ValueError) as refusal:
        sweep.select(lr=0.3, seed=0)
    assert str(refusal.value) == (
        "no run has {'lr': 0.3, 'seed': 0}; there are {'lr': ['0.1', '0.2'], 'seed': ['0', '1']}"
    )
    with pytest.raises(ValueError, match=r"^a criterion must be one of .*label.*got 'colour'"):
        sweep.select(colour=1)


@pytest.mark.parametrize("name", ["table1", "table2", "shift"])
def test_the_fields_tell_which_kind_of_configuration_it_is(name):
    config = plan(name, seeds=[0])[0]
    assert config_from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_a_recorded_sweep_is_found_by_its_name():
    words = r"^name must be one of cifar10_small, edge_of_stability, .*; got 'imagenet'"
    with pytest.raises(ValueError, match=words):
        load_recorded("imagenet")
    assert len(load_recorded()) == len(plan("all"))  # the sweep behind the paper's figures


def test_bounds_of_a_hundred_classes_are_those_of_a_hundred_classes():
    """(K - 1) Q and Q / K, from the very same columns on a data set of ten and of a hundred."""
    recorded = load_recorded("fashion_mnist_small").select(label="GD", lr=0.2, seed=0)
    (run,) = recorded.runs
    ten, hundred = (
        {
            (entry.phase, entry.split, entry.bound): entry.median
            for entry in slack_table(Sweep((replace(run, config=config),)))
        }
        for config in (run.config, replace(run.config, dataset="cifar100"))
    )
    for (phase, part, bound), value in ten.items():
        lost = {"paper_upper": math.log10(99 / 9), "paper_lower": 1.0}.get(bound, 0.0)
        # The same logarithms, added in another order.
        np.testing.assert_allclose(hundred[phase, part, bound], value + lost, atol=1e-12)


def test_a_sweep_is_of_one_data_set_with_one_run_of_a_kind():
    with pytest.raises(ValueError, match="one data set, got no run"):
        Sweep(())
    words = r"^runs must be of one data set, got cifar100, mnist; make a sweep of each$"
    with pytest.raises(ValueError, match=words):
        Sweep((of("mnist"), of("cifar100")))
    with pytest.raises(ValueError) as refusal:
        Sweep((of("mnist"), of("mnist", seed=1), of("mnist", steps=5)))
    assert str(refusal.value) == (
        "runs must be different, got 2 of sgd, SGD, learning rate 0.1, seed 0: "
        "no spread over seeds could be told"
    )
    bulk = [of("mnist", optimizer="bulk_sgd", options={"directions": k}) for k in (1, 3)]
    sweep = Sweep((of("mnist"), of("mnist", lr=0.2), of("mnist", seed=1), *bulk))
    assert sweep.labels == ["SGD", "BulkSGD 1", "BulkSGD 3"]
    assert sweep.optimizers == ["sgd", "bulk_sgd"]
    assert repr(sweep) == "Sweep(5 runs: SGD, BulkSGD 1, BulkSGD 3)"


def test_a_saved_sweep_with_a_run_twice_is_refused_by_name(tmp_path):
    path = tmp_path / "s.json"
    Sweep((of("mnist"),)).save(path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"runs": record["runs"] * 2}))
    with pytest.raises(ValueError, match=r"s\.json.*got 2 of sgd"):
        Sweep.load(path)


@pytest.mark.parametrize("bad", [1, "10", 10.0, True, None])
def test_a_number_of_classes_is_a_whole_number_of_two_at_least(bad, tmp_path):
    path = tmp_path / "s.json"
    Sweep((of("mnist"),)).save(path)
    record = json.loads(path.read_text())
    record["runs"][0]["n_classes"] = bad
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"s\.json.*n_classes"):
        Sweep.load(path)
