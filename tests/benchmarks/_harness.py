"""Timing side by side: one process, the same inputs, alternating order; results are ratios.

A ratio to a peer in the same run survives a slow or busy machine, a number of seconds does not.
A script of this folder lists its *parts* (`Comparison`, `Growth`, `Table`), each of which measures
itself and returns a record: plain data, which `run.py` collects and `_report.py` prints and draws.
"""

import argparse
import gc
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from _report import text_of

from calibcourse._files import write_json

Record = dict[str, Any]
MAX_SECONDS, MAX_MEGABYTES = 20.0, 4000.0  # of one call while something grows


@dataclass(frozen=True)
class Setting:
    """Where to measure, and whether only to try that everything runs."""

    device: str = "cpu"
    quick: bool = False

    def pick(self, full: Any, quick: Any) -> Any:
        """The size for the record, or the one for a trial."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Peer:
    """The same work done by somebody else, or a unit of work to count ours in.

    Attributes:
        name: as shown.
        call: subject -> result; imports its library itself, so that it may be missing.
        library: the package it needs, as PyPI spells it; None if it is written in this folder.
        bound: the largest disagreement that is no defect; None where there is nothing to agree on.
        target: how many times our time it should take at least; None where nothing is promised.
        unit: it does less than ours does; read as "ours costs so many of these".
    """

    name: str
    call: Callable[[Any], Any]
    library: str | None = None
    bound: float | None = None
    target: float | None = None
    unit: bool = False


@dataclass(frozen=True)
class Comparison:
    """Our function beside its peers on one subject.

    Attributes:
        name: by which `--only` finds it.
        what: the quantity computed.
        subject: setting -> the inputs that all share.
        size: subject -> its size in words.
        ours: subject -> result.
        peers: whom to compare with.
        apart: (our result, a peer's) -> disagreement.
        measure: what that disagreement is, in words.
        rounds: timed rounds; who goes first rotates.
        notes: (subject, results by name) -> lines to keep with the figures.
    """

    name: str
    what: str
    subject: Callable[[Setting], Any]
    size: Callable[[Any], str]
    ours: Callable[[Any], Any]
    peers: Sequence[Peer]
    apart: Callable[[Any, Any], float]
    measure: str
    rounds: int = 11
    notes: Callable[[Any, Mapping[str, Any]], list[str]] = lambda subject, results: []

    def record(self, setting: Setting) -> Record:
        subject = self.subject(setting)
        calls = {"ours": partial(self.ours, subject)}
        calls |= {peer.name: partial(peer.call, subject) for peer in self.peers}
        results, left_out = warm_up(calls, [peer.name for peer in self.peers if peer.library])
        present = {name: calls[name] for name in results}
        times = alternate(present, setting.pick(self.rounds, 2), clock_for(setting))
        return {
            "kind": "comparison",
            "name": self.name,
            "what": self.what,
            "size": self.size(subject),
            "measure": self.measure,
            "rounds": len(times["ours"]),
            "ours_ms": 1e3 * statistics.median(times["ours"]),
            "peers": [
                self._beside(peer, times, results) for peer in self.peers if peer.name in results
            ],
            "left_out": left_out,
            "notes": self.notes(subject, results),
        }

    def _beside(self, peer: Peer, times: Mapping, results: Mapping) -> Record:
        low, middle, high = quartiles(
            [theirs / mine for theirs, mine in zip(times[peer.name], times["ours"], strict=True)]
        )
        agree = peer.bound is not None
        return {
            "name": peer.name,
            "library": peer.library,
            "unit": peer.unit,
            "ms": 1e3 * statistics.median(times[peer.name]),
            "ratio": middle,
            "quartiles": [low, high],
            "target": peer.target,
            "disagreement": self.apart(results["ours"], results[peer.name]) if agree else None,
        }


@dataclass(frozen=True)
class Growth:
    """Seconds of a comparison's calls while its subject grows, each as far as it goes.

    Attributes:
        name: by which `--only` finds it.
        what: the quantity computed.
        comparison: whose calls are timed.
        along: what grows.
        sizes: rising.
        quick_sizes: for a trial.
        subject: (setting, size) -> (subject, its exact size).
        rounds: the median of so many calls counts.
    """

    name: str
    what: str
    comparison: Comparison
    along: str
    sizes: Sequence[int]
    quick_sizes: Sequence[int]
    subject: Callable[[Setting, int], tuple[Any, int]]
    rounds: int = 3

    def record(self, setting: Setting) -> Record:
        calls = {"ours": self.comparison.ours}
        calls |= {peer.name: peer.call for peer in self.comparison.peers if not peer.unit}
        curves = {name: Curve() for name in calls}
        left_out: dict[str, str] = {}
        for index, size in enumerate(setting.pick(self.sizes, self.quick_sizes)):
            subject, exact = self.subject(setting, size)
            if index == 0:
                ready, left_out = warm_up(
                    {name: partial(call, subject) for name, call in calls.items()},
                    [peer.name for peer in self.comparison.peers if peer.library],
                )
                calls = {name: calls[name] for name in ready}
            for name, call in calls.items():
                if curves[name].can_reach(exact):
                    curves[name].add(exact, partial(call, subject), self.rounds, setting)
        return {
            "kind": "growth",
            "name": self.name,
            "what": self.what,
            "along": self.along,
            "curves": [{"name": name, **vars(curves[name])} for name in calls],
            "left_out": left_out,
        }


class Curve:
    """Seconds and memory of one call by size, and why it ended."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.seconds: list[float] = []
        self.megabytes: list[float | None] = []
        self.stopped: str | None = None

    def add(self, size: int, call: Callable[[], Any], rounds: int, setting: Setting) -> None:
        first, megabytes = measured(call, setting)
        # A slow call is not repeated: its own noise is small.
        rest = alternate({"": call}, rounds - 1, clock_for(setting))[""] if first < 2 else []
        self.sizes.append(size)
        self.seconds.append(statistics.median([*rest, first]))
        self.megabytes.append(megabytes)

    def can_reach(self, size: int) -> bool:
        """Whether one call at this size should stay within the limits, by the smaller ones."""
        if self.stopped is None and len(self.sizes) >= 2:
            seconds = extrapolate(self.sizes, self.seconds, size)
            megabytes = extrapolate(self.sizes, [max(1.0, m or 0.0) for m in self.megabytes], size)
            if seconds > MAX_SECONDS:
                self.stopped = f"about {seconds:.0f} s at {size:,}"
            elif megabytes > MAX_MEGABYTES:
                self.stopped = f"about {megabytes / 1000:.0f} GB at {size:,}"
        return self.stopped is None


@dataclass(frozen=True)
class Table:
    """Figures without a peer's time: accuracies, seconds and memory of ours alone.

    Attributes:
        name: by which `--only` finds it.
        title: what is shown.
        rows: setting -> rows, each text or number by its column's heading.
    """

    name: str
    title: str
    rows: Callable[[Setting], Iterable[Mapping[str, str | float | None]]]

    def record(self, setting: Setting) -> Record:
        return {
            "kind": "table",
            "name": self.name,
            "title": self.title,
            "rows": [dict(row) for row in self.rows(setting)],
        }


Part = Comparison | Growth | Table


def script(description: str, parts: Sequence[Part]) -> None:
    """What every script of this folder does when it is run: measure its parts and print them."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: try that all runs")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in parts])
    parser.add_argument("--json", help="write the records to this file")
    options = parser.parse_args()
    setting = Setting(options.device, options.quick)
    chosen = [part for part in parts if options.only is None or part.name in options.only]
    records = measure_parts(chosen, setting, options.threads)
    if options.json:
        write_json(options.json, records)


def measure_parts(parts: Iterable[Part], setting: Setting, threads: int) -> list[Record]:
    """The records of some parts, each printed as soon as it is there."""
    torch.set_num_threads(threads)
    # What peers do with deprecated calls, or with gradients that hold their graph, is theirs.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="Using backward.* with create_graph=True")
    records = []
    for part in parts:
        gc.collect()
        records.append(part.record(setting))
        print(text_of(records[-1]), flush=True)
    return records


def warm_up(
    calls: Mapping[str, Callable[[], Any]], may_be_missing: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """One result per call; and for those whose library is not installed, what was missing."""
    results, left_out = {}, {}
    for name, call in calls.items():
        try:
            results[name] = call()
        except ImportError as error:
            if name not in may_be_missing:
                raise
            left_out[name] = str(error)
    return results, left_out


def alternate(
    calls: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every call; each round runs them all, starting with another one."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for start in range(rounds):
        for place in range(len(names)):
            name = names[(start + place) % len(names)]
            times[name].append(timed(calls[name], clock))
    return times


def timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Seconds of one call, the work it left to the GPU included."""
    _wait_for_device()
    start = clock()
    call()
    _wait_for_device()
    return clock() - start


def clock_for(setting: Setting) -> Callable[[], float]:
    # One thread's processor time does not count what other programs take from it.
    alone = setting.device == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, interpolated between the values.

    Example:
        >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
        (2.0, 3.0, 4.0)
    """
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def extrapolate(sizes: Sequence[float], values: Sequence[float], size: float) -> float:
    """The value at `size` if it goes on as from the first size to the last.

    Small sizes mislead both ways, so at least in proportion and at most with the square.

    Example:
        >>> round(extrapolate([10, 100], [2.0, 200.0], 1000))
        20000
        >>> extrapolate([10, 100], [2.0, 2.0], 1000)
        20.0
    """
    x0, x1, y0, y1 = sizes[0], sizes[-1], values[0], values[-1]
    power = min(2.0, max(1.0, math.log(y1 / y0) / math.log(x1 / x0)))
    return y1 * (size / x1) ** power


def measured(call: Callable[[], Any], setting: Setting) -> tuple[float, float | None]:
    """Seconds of one call, and the extra memory at its height in MB, None where nobody tells."""
    gc.collect()
    if setting.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = timed(call, clock_for(setting))
        return seconds, (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        with open("/proc/self/clear_refs", "w") as handle:
            handle.write("5")  # resets the high-water mark to the present use
        before = _resident_peak_mb()
    except OSError:
        return timed(call, clock_for(setting)), None
    return timed(call, clock_for(setting)), _resident_peak_mb() - before


def _resident_peak_mb() -> float:
    with open("/proc/self/status") as handle:
        line = next(line for line in handle if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
