"""Where the jobs of a sweep run: here, in processes, on a cluster; what a record tells of it."""

import os
import platform
import queue
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch

from calibcourse.reproduce import runner
from calibcourse.reproduce.runner import executor_for

# --- executors


def test_without_workers_a_job_is_run_at_once_and_here():
    with executor_for() as executor:
        future = executor.submit(int, "11", base=2)
        assert future.done() and future.result() == 3
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result()


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_are_at_least_one(workers):
    with pytest.raises(ValueError, match="workers must be at least 1"), executor_for(workers):
        pass


def test_workers_are_fresh_processes_and_what_waits_is_given_up_at_the_end(monkeypatch):
    asked, pools, goes_on = [], [], threading.Event()

    class Pool(ThreadPoolExecutor):  # threads take no time to start
        def __init__(self, workers, context, initializer):
            asked.append((workers, context.get_start_method(), initializer))
            super().__init__(workers)
            pools.append(self)

        def shutdown(self, *args, **kwargs):
            super().shutdown(False, *args, **kwargs)
            goes_on.set()

    monkeypatch.setattr(runner, "ProcessPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt), executor_for(2) as executor:
        jobs = [executor.submit(goes_on.wait) for _ in range(5)]
        raise KeyboardInterrupt
    assert executor is pools[0] and asked == [(2, "spawn", runner._die_with_parent)]
    assert [job.cancelled() for job in jobs] == [False, False, True, True, True]


def test_a_worker_ends_when_its_parent_does(monkeypatch):
    ended, exits = threading.Event(), queue.Queue()
    monkeypatch.setattr(runner, "parent_process", lambda: SimpleNamespace(join=ended.wait))
    monkeypatch.setattr(runner.os, "_exit", exits.put)
    before = set(threading.enumerate())
    runner._die_with_parent()
    (watcher,) = set(threading.enumerate()) - before
    assert watcher.daemon and exits.empty()  # a worker that is done must not wait for it
    ended.set()
    watcher.join()
    assert exits.get() > 0
    monkeypatch.setattr(runner, "parent_process", lambda: None)
    with pytest.raises(AssertionError, match=r"^this process is no worker$"):
        runner._die_with_parent()


def test_a_scheduler_is_asked_at_its_address_and_left_at_the_end(monkeypatch):
    events = []

    class Client:
        def __init__(self, address, timeout):
            events.append((address, timeout))

        def get_executor(self):
            return "its executor"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            events.append("left")

    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=Client))
    with executor_for(scheduler="tcp://10.0.0.1:8786") as executor:
        assert executor == "its executor"
        assert events == [("tcp://10.0.0.1:8786", "5s")]
    assert events[1:] == ["left"]
    words = "^workers and scheduler exclude each other: the scheduler has workers$"
    with pytest.raises(ValueError, match=words), executor_for(2, "tcp://10.0.0.1:8786"):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)  # not installed
    words = r"^scheduler needs Dask, which is not installed: pip install 'calibcourse\[cluster\]'$"
    with pytest.raises(ValueError, match=words), executor_for(scheduler="tcp://10.0.0.1:8786"):
        pass


# --- what made a record


@pytest.fixture
def tomorrow_here(monkeypatch):
    """A clock on the wall that is a day ahead of that of Greenwich."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "HERE-24")
        time.tzset()
        yield
    time.tzset()


def test_provenance_tells_versions_machine_and_day(tomorrow_here):
    days = [datetime.now(UTC).date().isoformat()]
    made = runner.provenance()
    days.append(datetime.now(UTC).date().isoformat())  # another, at midnight
    assert made.pop("date") in days
    assert made.pop("processor") == runner._processor()
    assert made == {
        "python": ".".join(map(str, sys.version_info[:3])),
        "calibcourse": version("calibcourse"),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "system": os.uname().sysname,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


@pytest.mark.parametrize(
    ("text", "processor", "told"),
    [
        ("processor\t: 0\nmodel\t: 85\nmodel name\t: Chip: 2 GHz\nflags\t: x\n", "", "Chip: 2 GHz"),
        ("processor\t: 0\n", "a processor", "a processor"),
        (None, "a processor", "a processor"),
        (None, "", "a machine"),
    ],
)  # fmt: skip
def test_the_processor_is_told_as_the_system_knows_it(text, processor, told, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(runner, "Path", lambda path: {"/proc/cpuinfo": tmp_path / "cpuinfo"}[path])
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "a machine")
    assert runner._processor() == told
