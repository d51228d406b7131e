"""Compare this package with others side by side, record it, and draw and tabulate the record.

    python tests/benchmarks/run.py

runs every comparison on the CPU (about ten minutes on two cores) and writes results/cpu.json and
results/growth.png; with `--device cuda` it writes results/cuda.json. Each script runs in a process
of its own, so that no figure of memory holds what another one left. What the peers need is in
requirements.txt; a peer that is not installed is named and left out.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from _growth_figure import growth_figure
from _harness import Comparison, Part, Setting, measure_parts
from _report import benchmarks_page

from calibcourse._files import read_json, write_atomically, write_json
from calibcourse.plots import png_bytes
from calibcourse.reproduce.runner import provenance

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / ".github/benchmarks.md"
RESULTS = HERE / "results"
SCRIPTS = (
    "bench_costs",
    "bench_metrics",
    "bench_curvature",
    "bench_bounds",
    "bench_losses",
    "bench_attacks",
    "bench_training",
    "bench_growth",
    "bench_waits",
)


def catalogue() -> dict[str, tuple[Part, ...]]:
    """The parts of every script, by the script's name."""
    return {script: importlib.import_module(script).PARTS for script in SCRIPTS}


def libraries() -> list[str]:
    """Every library that some peer needs."""
    parts = [part for parts in catalogue().values() for part in parts]
    compared = [part for part in parts if isinstance(part, Comparison)]
    return sorted({peer.library for part in compared for peer in part.peers if peer.library})


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed, without what tells one build from another."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            print(f"not installed: {name}")
    return versions


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the scripts one after the other and collect their records."""
    made, load = provenance(), [os.getloadavg()[0]]
    records = []
    for script, parts in catalogue().items():
        chosen = [p for p in parts if options.only is None or p.name in options.only]
        if options.quick:  # nobody reads its figures: spare the processes
            setting = Setting(options.device, quick=True)
            records += measure_parts(chosen, setting, options.threads)
        elif chosen:
            records += run_script(script, chosen, options)
    load.append(os.getloadavg()[0])
    gpu = torch.cuda.get_device_name() if options.device != "cpu" else None
    return {
        "made": {
            **{key: made[key] for key in ("date", "python", "system", "processor", "cores")},
            "gpu": gpu,
            "threads": options.threads,
            "load": load,
            "versions": {
                "torch": made["torch"].partition("+")[0],
                **installed(["numpy", "scipy", *libraries()]),
            },
        },
        "parts": records,
    }


def run_script(script: str, parts: Sequence[Part], options: argparse.Namespace) -> list[dict]:
    """The records of one script's parts, measured in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.json"
        command = [sys.executable, str(HERE / f"{script}.py"), "--json", str(path)]
        command += ["--device", options.device, "--threads", str(options.threads)]
        subprocess.run([*command, "--only", *(part.name for part in parts)], check=True)
        return read_json(path)


def write_page(results: dict[str, Any], path: Path = PAGE) -> None:
    write_atomically(path, benchmarks_page(results).encode())


def draw(results: dict[str, Any], path: Path) -> None:
    growths = [record for record in results["parts"] if record["kind"] == "growth"]
    with plt.rc_context({"savefig.dpi": 180}):  # sharp where a page shows it at half of its width
        write_atomically(path, png_bytes(growth_figure(growths)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measure these, record nothing")
    parser.add_argument("--quick", action="store_true", help="try that all runs, record nothing")
    parser.add_argument("--output", type=Path, help="record in this file all the same")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--list", action="store_true", help="print the names and measure nothing")
    shown.add_argument("--page", action="store_true", help="print the page of the record")
    shown.add_argument("--write-page", action="store_true", help="write it to .github")
    shown.add_argument("--draw", action="store_true", help="draw growth.png again")
    options = parser.parse_args(arguments)
    recorded = RESULTS / f"{options.device}.json"
    names = [part.name for parts in catalogue().values() for part in parts]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only must name some of {', '.join(names)}; got {', '.join(unknown)}")
    if options.list:
        print("\n".join(names))
    elif options.page:
        print(benchmarks_page(read_json(recorded)), end="")
    elif options.write_page:
        write_page(read_json(recorded))
    elif options.draw:
        draw(read_json(recorded), RESULTS / "growth.png")
    else:
        results = measure(options)
        partial = options.quick or options.only
        path = options.output or (None if partial else recorded)
        if path:
            write_json(path, results)
        if path == RESULTS / "cpu.json":
            draw(results, RESULTS / "growth.png")
        print(f"written to {path}" if path else "nothing recorded: this was a part or a trial")


if __name__ == "__main__":
    main()
