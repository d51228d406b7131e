"""Many runs: what stops a sweep before it starts, what is kept, and what is told of failures."""

import json
import os
import re
import shutil
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from reproduce_cases import parse

from calibcourse.data import load_dataset
from calibcourse.history import History
from calibcourse.reproduce import ComparisonConfig, Run, TrajectoryConfig, cli, run_all, runner
from calibcourse.reproduce.one_run import check_data
from calibcourse.reproduce.runner import InProcess, SweepError, record_path, run_one

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
    told = {
        "another version": "must be a calibcourse.run of version 1, got ('calibcourse.run', 2); "
        "choose another output folder, or delete the file to run it again",
        "no JSON": "",
        "another run": f"must be the record of {TINY.key}, got that of {THREE[1].key}; delete the "
        "file to run it again",
    }
    with pytest.raises(ValueError, match=re.escape(f"{path} {told[damage]}".strip())):
        run_all(THREE, tmp_path, progress=False)
    assert not trained


def test_a_configuration_twice_is_told_before_the_first_run(tmp_path, trained):
    words = f"^configs must all be different, got twice: {TINY.key}, {THREE[2].key}$"
    with pytest.raises(ValueError, match=words):
        run_all([*THREE, THREE[2], TINY], tmp_path, progress=False)
    assert not trained


def test_a_report_that_cannot_be_written_is_told_before_the_first_run(
    tmp_path, trained, monkeypatch
):
    monkeypatch.setattr(cli, "plan", lambda *a: THREE)
    for suffix in ("png", "md", "json"):
        folder = tmp_path / suffix
        (folder / f"figure1.{suffix}").mkdir(parents=True)
        with pytest.raises(OSError, match=rf"cannot write .*figure1\.{suffix}"):
            cli.run(parse("figure1", "--out", str(folder)))
    assert not trained


def test_repeated_seeds_are_told_before_the_first_run(tmp_path, trained):
    for name in ("figure1", "methods"):
        with pytest.raises(ValueError, match=r"seeds must be different numbers.*\[1, 1\]"):
            cli.run(parse(name, "--out", str(tmp_path), "--seeds", "1", "1"))
    assert not trained and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told_before_the_first_run(tmp_path, trained):
    for name in ("runs", "checkpoints"):
        folder = tmp_path / f"no {name}"
        folder.mkdir()
        (folder / name).write_text("a file")
        with pytest.raises(OSError, match=rf"^cannot write to the output folder {folder}: .*File"):
            run_all(THREE, folder, progress=False)
    assert not trained


# --- while it runs


class Seen(InProcess):
    """Runs jobs in another working directory, as a worker may, and keeps what was asked of it."""

    def __init__(self, place):
        self.place, self.jobs = place, []

    def submit(self, fn, /, *args, **kwargs):
        self.jobs.append(fn)
        here = os.getcwd()
        os.chdir(self.place)
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            os.chdir(here)


def test_workers_look_for_the_data_and_write_to_the_folder_that_was_meant(
    tmp_path, trained, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    executor = Seen(tmp_path / "elsewhere")
    assert len(run_all(THREE, "sweep", executor, progress=False)) == 3
    assert executor.jobs == [check_data, *[run_one] * 3]
    assert record_path(tmp_path / "sweep", TINY).is_file()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_finished_sweep_needs_no_data_no_worker_and_no_place_to_write(
    tmp_path, trained, monkeypatch
):
    first = run_all(THREE, tmp_path, progress=False)
    shutil.rmtree(tmp_path / "checkpoints")
    monkeypatch.setenv("CALIBCOURSE_DATA", str(tmp_path / "nothing"))
    executor = Seen(tmp_path)
    assert run_all(THREE, tmp_path, executor, progress=False) == first
    assert not executor.jobs and not (tmp_path / "checkpoints").exists()


def test_failed_runs_are_told_and_the_same_again_tries_only_these(tmp_path, monkeypatch):
    tried = []

    def train(config, checkpoint):
        tried.append(config.seed)
        if config.seed and len(tried) < 4:
            raise ArithmeticError(f"seed {config.seed}")
        return FINISHED

    monkeypatch.setattr(runner, "train", train)
    with pytest.raises(SweepError) as told:
        run_all(THREE, tmp_path, progress=False)
    assert str(told.value) == (
        "2 of 3 runs failed; the others are kept, and the same command again tries only these:\n"
        f"  {THREE[1].key}: ArithmeticError: seed 1\n"
        f"  {THREE[2].key}: ArithmeticError: seed 2"
    )
    assert len(run_all(THREE, tmp_path, progress=False)) == 3
    assert tried == [0, 1, 2, 1, 2]


class Elsewhere(Executor):
    """Says of every run that it is done, and leaves no record where this machine looks."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(None)
        return future


def test_workers_that_write_elsewhere_are_told(tmp_path):
    words = rf"(?s)3 of 3.*{TINY.key}: OSError: its worker wrote to another {tmp_path} than this"
    with pytest.raises(SweepError, match=words):
        run_all(THREE, tmp_path, Elsewhere(), progress=False)


def test_the_bar_starts_at_what_is_finished_and_ends_full(tmp_path, trained, monkeypatch, capsys):
    bars = []

    class Bar(runner.tqdm):
        monitor_interval = 0  # no thread, which would outlive the test

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.start = self.n
            bars.append(self)

    monkeypatch.setattr(runner, "tqdm", Bar)
    for configs in (THREE[:1], THREE, THREE):
        run_all(configs, tmp_path)
    assert [(bar.start, bar.n, bar.total) for bar in bars] == [(0, 1, 1), (1, 3, 3), (3, 3, 3)]
    assert trained == [0, 1, 2]
    told = capsys.readouterr().err
    assert "3/3 [" in told and "run/s" in told
    run_all(THREE, tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


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
    now, seen = [1], []  # said, not started: threads would outlive the test
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    monkeypatch.setattr(runner, "train", lambda *_: seen.append(now[-1]) or FINISHED)
    (run,) = run_all([replace(TINY, threads=7)], tmp_path, progress=False)
    assert seen == [7] == [run.provenance["threads"]]
    assert now[-1] == 1


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
        for file in (".x.json.0123abcd.tmp", "mine.tmp", ".mine"):
            (tmp_path / name / file).write_text("half")
    run_all(THREE[:1], tmp_path, progress=False)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"mine.tmp", ".mine", f"{TINY.key}.json"}


def test_a_checkpoint_that_outlived_its_run_is_cleared_away(tmp_path, trained):
    """Killed between the two, a job has written its record and not yet removed its checkpoint."""
    record = run_one(TINY, tmp_path)
    assert record == str(tmp_path / "runs" / f"{TINY.key}.json") == str(record_path(tmp_path, TINY))
    checkpoint = tmp_path / "checkpoints" / f"{TINY.key}.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"all of a run")
    assert run_one(TINY, tmp_path) == record
    assert trained == [0] and not checkpoint.exists()


@pytest.fixture
def clock(monkeypatch):
    """A clock for the runner, which the test sets."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(runner, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


def test_a_record_tells_the_seconds_of_its_training_and_of_a_comparisons_step(
    tmp_path, monkeypatch, clock
):
    def train(config, checkpoint):
        assert checkpoint == tmp_path / "checkpoints" / f"{config.key}.pt"
        clock.seconds += 12.34
        return FINISHED

    def step_seconds(config):
        clock.seconds += 5
        return config.lr / 10

    monkeypatch.setattr(runner, "train", train)
    monkeypatch.setattr(runner, "step_seconds", step_seconds)
    comparison = ComparisonConfig(
        dataset="fashion_mnist_small", model="small_cnn", optimizer="sgd", lr=2.5, steps=4,
        batch_size=16, train_samples=40, held_out_samples=30, loss="cross_entropy", probes=2,
    )  # fmt: skip
    one, other = run_all([TINY, comparison], tmp_path, progress=False)
    assert one.provenance["seconds"] == other.provenance["seconds"] == 12.3
    assert "seconds_per_step" not in one.provenance
    assert other.provenance["seconds_per_step"] == 0.25
    assert one.history == other.history == FINISHED


# --- runs in stacks


@pytest.fixture
def stacked(monkeypatch, clock, trained):
    """Training of stacks in a hundred seconds, of which some fail, and what was asked for."""
    made = SimpleNamespace(seeds=[], checkpoints=[], threads=[], fails={}, alone=trained)

    def train_stacked(configs, checkpoints):
        clock.seconds += 100
        made.seeds.append([config.seed for config in configs])
        made.checkpoints += checkpoints
        made.threads.append(torch.get_num_threads())
        return [made.fails.get(config.seed, FINISHED) for config in configs]

    monkeypatch.setattr(runner, "train_stacked", train_stacked)
    return made


def test_a_stack_leaves_a_record_of_each_run_and_its_share_of_the_seconds(
    tmp_path, stacked, monkeypatch
):
    now = [1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    configs = [replace(config, threads=7) for config in (*THREE, replace(TINY, steps=5))]
    paths = [tmp_path / "checkpoints" / f"{config.key}.pt" for config in configs]
    paths[0].parent.mkdir()
    paths[2].write_bytes(b"half a run")
    runs = run_all(configs, tmp_path, progress=False, stacked=True)
    assert [run.config for run in runs] == configs
    assert (stacked.seeds, stacked.alone) == ([[0, 1, 2]], [0])
    assert stacked.checkpoints == paths[:3] and stacked.threads == [7] and now[-1] == 1
    told = [[run.provenance.get(n) for n in ("stacked", "seconds", "resumed")] for run in runs]
    assert told == [[3, 33.3, False], [3, 33.3, False], [3, 33.3, True], [None, 0.0, False]]
    assert {run.provenance["threads"] for run in runs} == {7}
    assert not list(paths[0].parent.iterdir())


def test_a_run_of_a_stack_that_cannot_start_costs_no_other(tmp_path, stacked):
    stacked.fails[0] = ValueError("damaged")
    path = tmp_path / "checkpoints" / f"{TINY.key}.pt"
    path.parent.mkdir()
    path.write_bytes(b"no checkpoint")
    with pytest.raises(SweepError, match=rf"^1 of 3 (?s:.*):\n  {TINY.key}: ValueError: damaged$"):
        run_all(THREE, tmp_path, progress=False, stacked=True)
    assert path.exists()  # whoever looks for the fault finds it
    stacked.fails.clear()
    assert len(run_all(THREE, tmp_path, progress=False, stacked=True)) == 3
    assert stacked.seeds == [[0, 1, 2]] and stacked.alone == [0]


def test_failures_of_all_stacks_are_told(tmp_path, stacked):
    stacked.fails[1] = ValueError("damaged")
    configs = [replace(TINY, steps=steps, seed=seed) for steps in (4, 5) for seed in (0, 1)]
    with pytest.raises(SweepError) as told:
        run_all(configs, tmp_path, progress=False, stacked=True)
    assert stacked.seeds == [[0, 1], [0, 1]]
    assert str(told.value).splitlines()[1:] == [
        f"  {config.key}: ValueError: damaged" for config in configs[1::2]
    ]


def test_a_stack_that_fails_as_a_whole_is_told_of_each_of_its_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "train_stacked", None)
    with pytest.raises(SweepError) as told:
        run_all(THREE, tmp_path, progress=False, stacked=True)
    first, *lines = str(told.value).splitlines()
    assert first.startswith("3 of 3 runs failed")
    assert [line.split(": ")[:2] for line in lines] == [
        [f"  {config.key}", "TypeError"] for config in THREE
    ]
