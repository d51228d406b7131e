"""Clocks that jump, and a session that dies with the lock."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from fault_cases import (
    TINY,
    some_history,
)

from calibcourse._files import write_atomically
from calibcourse.cli import main
from calibcourse.exercises import store
from calibcourse.reproduce import Run, runner

pytestmark = pytest.mark.usefixtures("impatience")


def test_progress_is_sound_whatever_the_clock_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    now = datetime(2026, 4, 1, tzinfo=UTC)
    times = [now, now - timedelta(days=365), now.replace(year=2039), now.replace(year=1970),
             datetime.max.replace(tzinfo=UTC), now]  # fmt: skip
    for number, then in enumerate(times, start=1):
        monkeypatch.setattr(
            store, "datetime", SimpleNamespace(now=lambda zone, then=then: then,
                                               fromisoformat=datetime.fromisoformat)
        )  # fmt: skip
        assert store.record_attempt("01/ece", "incorrect" if number == 1 else "correct") is None
        record = store.load()["01/ece"]
        assert record.attempts == number
        assert record.first_attempt == "2026-04-01T00:00:00Z"
        assert record.first_correct == (None if number == 1 else "2025-04-01T00:00:00Z")
    assert main(["progress"]) == 0 and "2025-04-01T00:00:00Z" in capsys.readouterr().out


def test_seconds_of_a_run_come_from_a_clock_that_cannot_jump(tmp_path, monkeypatch):
    history, clock = some_history(1), time.time
    monkeypatch.setattr(runner, "train", lambda *_: monkeypatch.setattr(
        time, "time", lambda: clock() - 1e7) or history)  # fmt: skip
    runner.run_one(TINY, tmp_path)
    seconds = Run.load(runner.record_path(tmp_path, TINY)).provenance["seconds"]
    assert 0 <= seconds < 1e6


def test_a_neighbour_from_the_future_is_abandoned_too(tmp_path):
    path, neighbour = tmp_path / "a.json", tmp_path / ".a.json.12345678.tmp"
    neighbour.write_bytes(b"")
    os.utime(neighbour, (2**32, 2**32))  # the clock has been set back since
    write_atomically(path, b"")
    assert not neighbour.exists()


SESSION = r"""
import fcntl, sys, time
from calibcourse.exercises import store

store._LOCK_SECONDS = 600
flock = fcntl.flock

def telling(*arguments):  # of the first try in vain
    try:
        flock(*arguments)
    except BlockingIOError:
        fcntl.flock = flock
        print("waiting", flush=True)
        raise

print("ready", flush=True)
for line in sys.stdin:
    if line == "hold\n":  # stop in the middle of an update, with the lock
        store.write_json = lambda *_: print("held", flush=True) or time.sleep(600)
        store.record_attempt("01/ece", "correct")
    if line == "wait\n":
        fcntl.flock = telling
    notes = {store.record_attempt("01/ece", "incorrect") for _ in range(40)}
    print(notes, flush=True)
"""


def test_a_session_killed_with_the_lock_does_not_stop_the_other(tmp_path):
    path = tmp_path / "progress.json"
    environment = os.environ | {"CALIBCOURSE_PROGRESS": str(path)}
    sessions = [
        subprocess.Popen(
            [sys.executable, "-c", SESSION],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]

    def tell(session: subprocess.Popen, word: str) -> None:
        session.stdin.write(f"{word}\n")
        session.stdin.flush()

    def heard(session: subprocess.Popen) -> str:
        return session.stdout.readline().strip()

    try:
        assert [heard(session) for session in sessions] == ["ready"] * 2
        for session in sessions:
            tell(session, "write")
        assert [heard(session) for session in sessions] == ["{None}"] * 2
        assert store.load(path)["01/ece"].attempts == 80

        victim, other = sessions
        tell(victim, "hold")
        assert heard(victim) == "held"
        tell(other, "wait")
        assert heard(other) == "waiting"
        assert store.load(path)["01/ece"].attempts == 80
        victim.kill()
        assert heard(other) == "{None}"
        assert store.load(path)["01/ece"].attempts == 120
    finally:
        for session in sessions:
            session.kill()
            session.communicate()
