"""Timing side by side: one process, the same inputs, alternating order; results are ratios.

A ratio to a peer in the same run survives a slow or busy machine, a number of seconds does not.
"""

import gc
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def print_header(title: str, *packages: str) -> None:
    """Print what the numbers below depend on: versions, processor, threads, load."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", *packages)]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"{title}\nPython {platform.python_version()}, {', '.join(versions)}")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"load {load} before the run\n"
    )


def compare(
    ours: Callable[[], object],
    peers: Mapping[str, Callable[[], object]],
    rounds: int = 11,
    agreement: Callable[[object, object], float] | None = None,
) -> None:
    """Time `ours` against each peer and print median times, the ratio's quartiles and agreement.

    Args:
        ours: a call without arguments that returns its result.
        peers: name -> the same work done by somebody else.
        rounds: timed rounds per peer; who goes first alternates.
        agreement: distance between two results, default: absolute difference as floats.
    """
    agreement = agreement or (lambda a, b: abs(float(a) - float(b)))
    width = max(map(len, peers))
    print(f"{'peer':{width}}  {'peer ms':>9}  {'ours ms':>9}  peer/ours [quartiles]   disagreement")
    for name, peer in peers.items():
        apart = agreement(ours(), peer())  # also the warm-up
        times: dict[Callable, list[float]] = {ours: [], peer: []}
        for index in range(rounds):
            for call in (ours, peer) if index % 2 else (peer, ours):
                times[call].append(_seconds(call))
        ratios = [theirs / mine for theirs, mine in zip(times[peer], times[ours], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        peer_ms, ours_ms = (1e3 * statistics.median(times[call]) for call in (peer, ours))
        print(
            f"{name:{width}}  {peer_ms:9.2f}  {ours_ms:9.2f}  "
            f"{middle:6.2f} [{low:.2f}, {high:.2f}]     {apart:.1e}"
        )
    print()


def peak_memory_mb(call: Callable[[], object]) -> float | None:
    """Extra resident memory at the height of `call`, in MB; None where Linux does not tell."""
    try:
        gc.collect()
        with open("/proc/self/clear_refs", "w") as handle:
            handle.write("5")  # resets the high-water mark to the present use
        before = _resident_peak_mb()
        call()
        return _resident_peak_mb() - before
    except OSError:
        return None


def _resident_peak_mb() -> float:
    with open("/proc/self/status") as handle:
        line = next(line for line in handle if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _seconds(call: Callable[[], object]) -> float:
    _wait_for_device()
    start = time.perf_counter()
    call()
    _wait_for_device()
    return time.perf_counter() - start


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
