"""Many runs: what stops a sweep before it starts, and what an executor may get wrong."""

import argparse
import json
import shutil
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from calibcourse.data import load_dataset
from calibcourse.history import History
from calibcourse.reproduce import Run, TrajectoryConfig, cli, run_all, runner
from calibcourse.reproduce.one_run import check_data
from calibcourse.reproduce.runner import SweepError, executor_for, record_path

TINY = TrajectoryConfig(
    dataset="fashion_mnist_small", optimizer="sgd", lr=0.1, steps=4, batch_size=16,
    train_samples=40, held_out_samples=30, hidden=(6,), even_probes=3, log_probes=2,
)  # fmt: skip
THREE = [replace(TINY, seed=seed) for seed in (0, 1, 2)]
FINISHED = History([{"step": 0, "train_ece": 0.5}])


@pytest.fixture
def trained(monkeypatch):
    """Training that takes no time, and the list of the seeds that were trained."""
    seeds = []

    def train(config, checkpoint):
        seeds.append(config.seed)
        return FINISHED

    monkeypatch.setattr(runner, "train", train)
    return seeds


# --- before anything is trained


def test_too_few_images_are_told_before_the_first_run(tmp_path, trained):
    small = load_dataset("fashion_mnist_small")
    for field, split in (("train_samples", small.train), ("held_out_samples", small.test)):
        assert run_all([replace(TINY, **{field: len(split)})], tmp_path, progress=False)
        trained.clear()
        configs = [*THREE, replace(TINY, seed=3, **{field: len(split) + 1})]
        words = f"{field} must be at most the {len(split):,} images that fashion_mnist_small has"
        with pytest.raises(ValueError, match=words):
            run_all(configs, tmp_path, progress=False)
        assert not trained


def test_a_data_set_that_is_not_there_is_told_before_the_first_run(tmp_path, trained, monkeypatch):
    monkeypatch.setenv("CALIBCOURSE_DATA", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match=r'load_dataset\("cifar100"'):
        run_all([*THREE, replace(TINY, dataset="cifar100")], tmp_path, progress=False)
    assert not trained


def test_every_data_set_of_the_configurations_is_looked_at(monkeypatch):
    seen = []
    small = load_dataset("fashion_mnist_small")
    monkeypatch.setattr("calibcourse.reproduce.one_run._dataset", lambda n: seen.append(n) or small)
    check_data([TINY, replace(TINY, dataset="mnist"), replace(TINY, seed=1)])
    assert seen == ["fashion_mnist_small", "mnist"]


@pytest.mark.parametrize("damage", ["another version", "no JSON", "another run"])
def test_a_record_that_cannot_be_used_is_told_before_the_first_run(damage, tmp_path, trained):
    run_all(THREE[:1], tmp_path, progress=False)
    path = record_path(tmp_path, TINY)
    if damage == "another version":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    elif damage == "no JSON":
        path.write_text("{")
    else:
        run_all(THREE[1:2], tmp_path, progress=False)
        shutil.copy(record_path(tmp_path, THREE[1]), path)
    trained.clear()
    with pytest.raises(ValueError, match=path.name):
        run_all(THREE, tmp_path, progress=False)
    assert not trained


def test_a_configuration_twice_is_told_before_the_first_run(tmp_path, trained):
    with pytest.raises(ValueError, match=rf"got twice: {TINY.key}"):
        run_all([*THREE, TINY], tmp_path, progress=False)
    assert not trained


def test_a_report_that_cannot_be_written_is_told_before_the_first_run(
    tmp_path, trained, monkeypatch
):
    monkeypatch.setattr(cli, "plan", lambda *a: THREE)
    for suffix in ("png", "md", "json"):
        folder = tmp_path / suffix
        (folder / f"figure1.{suffix}").mkdir(parents=True)
        with pytest.raises(OSError, match=rf"cannot write .*figure1\.{suffix}"):
            cli.run(parsed("figure1", "--out", str(folder)))
    assert not trained


def test_repeated_seeds_are_told_before_the_first_run(tmp_path, trained):
    for name in ("figure1", "methods"):
        with pytest.raises(ValueError, match=r"seeds must be different numbers.*\[1, 1\]"):
            cli.run(parsed(name, "--out", str(tmp_path), "--seeds", "1", "1"))
    assert not trained and not list(tmp_path.iterdir())


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_are_at_least_one(workers):
    with pytest.raises(ValueError, match="workers must be at least 1"), executor_for(workers):
        pass


# --- while it runs


class Elsewhere(Executor):
    """Says of every run that it is done, and leaves no record where this machine looks."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(None)
        return future


def test_workers_that_write_elsewhere_are_told(tmp_path):
    with pytest.raises(SweepError, match=rf"(?s)3 of 3.*{TINY.key}: OSError: its worker wrote to"):
        run_all(THREE, tmp_path, Elsewhere(), progress=False)


def test_the_bar_starts_at_what_is_finished_and_ends_full(tmp_path, trained, monkeypatch):
    bars = []

    class Bar(runner.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.start = self.n
            bars.append(self)

    monkeypatch.setattr(runner, "tqdm", Bar)
    for configs in (THREE[:1], THREE, THREE):
        run_all(configs, tmp_path)
    assert [(bar.start, bar.n, bar.total) for bar in bars] == [(0, 1, 1), (1, 3, 3), (3, 3, 3)]
    assert trained == [0, 1, 2]


def test_a_process_trains_one_run_at_a_time(tmp_path, monkeypatch):
    """Threads and random numbers of torch belong to the process."""
    meeting = threading.Barrier(2)
    met = []

    def train(config, checkpoint):
        try:
            meeting.wait(timeout=0.1)  # two runs at a time would meet here; a single one gives up
            met.append(config.seed)
        except threading.BrokenBarrierError:
            meeting.reset()
        return FINISHED

    monkeypatch.setattr(runner, "train", train)
    with ThreadPoolExecutor(3) as executor:
        assert len(run_all(THREE, tmp_path, executor, progress=False)) == 3
    assert not met


def test_a_run_is_trained_with_its_own_number_of_threads(tmp_path, monkeypatch):
    import torch

    seen = []
    monkeypatch.setattr(
        runner, "train", lambda *_: seen.append(torch.get_num_threads()) or FINISHED
    )
    before = torch.get_num_threads()
    other = replace(TINY, threads=before + 1)
    (run,) = run_all([other], tmp_path, progress=False)
    assert seen == [before + 1] == [run.provenance["threads"]]
    assert torch.get_num_threads() == before


def test_a_record_tells_whether_its_run_was_resumed(tmp_path, trained):
    first, second = run_all(THREE[:1], tmp_path, progress=False), None
    assert first[0].provenance["resumed"] is False
    (tmp_path / "checkpoints" / f"{THREE[1].key}.pt").write_bytes(b"half a run")
    (second,) = run_all(THREE[1:2], tmp_path, progress=False)
    assert second.provenance["resumed"] is True
    assert not list((tmp_path / "checkpoints").iterdir())


def test_runs_come_back_in_the_order_that_was_asked_for(tmp_path, trained):
    run_all(THREE[1:2], tmp_path, progress=False)
    runs = run_all(THREE[::-1], tmp_path, progress=False)
    assert [run.config.seed for run in runs] == [2, 1, 0]
    assert all(isinstance(run, Run) for run in runs)


def test_what_killed_writers_left_is_cleared_away(tmp_path, trained):
    for name in ("runs", "checkpoints"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".x.json.0123abcd.tmp").write_text("half")
    run_all(THREE[:1], tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.tmp"))
