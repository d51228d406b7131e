"""`calibcourse doctor`: is this machine ready for the course, and if not, what is the one remedy?

Each finding is a pure function of what was measured; `examine` measures, `doctor` prints.
"""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.version import Version

from .._checks import check_choice
from .._devices import default_device
from ..data import DATASETS, find_dataset, load_dataset
from ..data._torchvision import import_torchvision
from ..exercises._place import host
from ..exercises.store import progress_path

OK, WARN, PROBLEM = "ok", "warn", "problem"

_GIB = 2**30
_MPS = "Apple GPU (no float64: lessons use the CPU, fit takes device='mps')"
_NEEDED = 1.5 * _GIB  # what one lesson may use
_TORCH_ALONE = 0.5 * _GIB
_ANY_TORCH = Requirement("torch")
_REINSTALL = "python -m pip install -r requirements.txt"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what it is.
        status: "ok", "warn" (the course works, with a limit) or "problem" (it does not).
        detail: what was found, one line.
        fix: one line that says what to do; given exactly where the status is not "ok".

    Raises:
        ValueError: an unknown status, a fix that is missing, superfluous or longer than a line.
    """

    name: str
    status: str
    detail: str
    fix: str = ""

    def __post_init__(self) -> None:
        check_choice(self.status, "status", (OK, WARN, PROBLEM))
        if (self.status == OK) != (self.fix == ""):
            raise ValueError(f"fix must be given exactly if something is wrong, got {self}")
        if "\n" in self.detail + self.fix:
            raise ValueError(f"detail and fix must be one line each, got {self}")

    def __str__(self) -> str:
        line = f"{self.status:<8} {self.name:<18} {self.detail}"
        return f"{line}\n{'':<9}fix: {self.fix}" if self.fix else line


def doctor() -> int:
    """Print what was found, one remedy under each thing that is wrong.

    Returns:
        Exit code: 1 if there is a problem, else 0.
    """
    findings = examine()
    print(*findings, sep="\n")
    print(f"\n{tally(findings)}")
    return 1 if worst(findings) == PROBLEM else 0


def worst(findings: Sequence[Finding]) -> str:
    """The worst status among findings."""
    return max((finding.status for finding in findings), key=(OK, WARN, PROBLEM).index)


def tally(findings: Sequence[Finding]) -> str:
    """How many problems and warnings there are, such as "no problems, 1 warning"."""
    statuses = [finding.status for finding in findings]
    problems, warnings = statuses.count(PROBLEM), statuses.count(WARN)
    return f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}"


def examine() -> list[Finding]:
    """Look at this machine: every finding, in the order in which one would mend them."""
    return [
        python_finding(platform.python_version()),
        torch_finding(torch.__version__, torch.version.cuda),
        torchvision_finding(torch.__version__, *_probe_torchvision()),
        *package_findings(*_declared_packages()),
        device_finding(
            *_probe_gpu(), torch.get_num_threads(), shutil.which("nvidia-smi") is not None
        ),
        memory_finding(_system_memory(), container_memory()),
        data_finding(_embedded_error(), _found_datasets()),
        progress_finding(progress_path()),
    ]


def python_finding(version: str) -> Finding:
    """Python 3.11 or newer.

    Example:
        >>> print(python_finding("3.10.4"))
        problem  Python             3.10.4
                 fix: install Python 3.11 or newer and make a new virtual environment with it
    """
    if Version(version) < Version("3.11"):
        fix = "install Python 3.11 or newer and make a new virtual environment with it"
        return Finding("Python", PROBLEM, version, fix)
    return Finding("Python", OK, version)


def torch_finding(version: str, cuda: str | None) -> Finding:
    """torch 2.9 or newer, and what it was built for."""
    detail = f"{version}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    if Version(version) < Version("2.9"):
        return Finding("torch", PROBLEM, detail, "python -m pip install 'torch>=2.9'")
    return Finding("torch", OK, detail)


def torchvision_finding(
    torch_version: str,
    version: str | None,
    error: str,
    has_operators: bool,
    needs: Requirement = _ANY_TORCH,
) -> Finding:
    """torchvision imports, was made for this torch, and has its compiled operators.

    Args:
        torch_version: of the installed torch.
        version: of torchvision, None if it is not installed.
        error: why it cannot be imported, "" if it can.
        has_operators: whether its own extension loaded.
        needs: the torch that its metadata asks for: one release up to torchvision 0.28, a range
            after it.
    """
    if version is None:
        return Finding("torchvision", PROBLEM, "not installed", _REINSTALL)
    if error:
        return Finding("torchvision", PROBLEM, f"{version}: {_one_line(error)}", _REINSTALL)
    reinstall = "uninstall torch and torchvision, then install both in one command"
    if not needs.specifier.contains(torch_version, prereleases=True):
        detail = f"{version} beside torch {torch_version}, was made for {needs}"
        return Finding("torchvision", WARN, detail, reinstall)
    if not has_operators:
        detail = f"{version} is another build than torch {torch_version}: data sets work, nms not"
        fix = f"nothing for this course; for detection models {reinstall}"
        return Finding("torchvision", WARN, detail, fix)
    return Finding("torchvision", OK, version)


def package_findings(
    requirements: Sequence[str], installed: Mapping[str, str], on_colab: bool = False
) -> list[Finding]:
    """Every required package is there, in a version that will do.

    JupyterLab and ipywidgets are named, the others stand in one line unless one is wrong.

    Args:
        requirements: as in package metadata, for example "ipywidgets>=7.7".
        installed: version by package name; a package that is not installed has no entry.
        on_colab: Colab brings its own notebook, so JupyterLab is not looked for.
    """
    findings, others = [], []
    for requirement in map(Requirement, requirements):
        name, version = requirement.name, installed.get(requirement.name)
        if name == "jupyterlab" and on_colab:
            findings.append(Finding(name, OK, "not needed on Colab"))
        elif version is None or not requirement.specifier.contains(version, prereleases=True):
            detail = f"{version or 'not installed'}, needed: {name}{requirement.specifier}"
            fix = f"python -m pip install '{name}{requirement.specifier}'"
            findings.append(Finding(name, PROBLEM, detail, fix))
        elif name in ("jupyterlab", "ipywidgets"):
            findings.append(Finding(name, OK, version))
        else:
            others.append(f"{name} {version}")
    return [*findings, Finding("other packages", OK, ", ".join(others) or "none")]


def device_finding(gpu: str | None, error: str, n_threads: int, has_driver: bool) -> Finding:
    """What computes.

    Args:
        gpu: name of the CUDA device, or Apple's, None without one.
        error: why a first computation on it failed, "" if it did not.
        n_threads: of torch on the CPU.
        has_driver: whether an NVIDIA driver is installed.
    """
    threads = f"CPU, {_counted(n_threads, 'thread')}"
    if gpu and error:
        fix = "update the NVIDIA driver, or hide the GPU: export CUDA_VISIBLE_DEVICES="
        return Finding("device", PROBLEM, f"{gpu} fails: {_one_line(error)}", fix)
    if gpu:
        return Finding("device", OK, f"{gpu}; {threads}")
    if has_driver:
        fix = "install a CUDA build of torch (pytorch.org/get-started); the lessons need none"
        return Finding("device", WARN, f"{threads}; torch cannot use the NVIDIA GPU", fix)
    return Finding("device", OK, threads)


def memory_finding(system: int | None, container: int | None) -> Finding:
    """A lesson needs at most 1.5 GiB.

    Args:
        system: bytes that the machine has free, None if unknown.
        container: bytes that the container may still take, None without a limit.
    """
    known = [amount for amount in (system, container) if amount is not None]
    if not known:
        fix = "python -m pip install psutil"
        return Finding("memory", WARN, "cannot tell how much is free", fix)
    free = min(known)
    where = " in this container" if free == container else ""
    detail = f"{free / _GIB:.1f} GiB free{where}"
    if free >= _NEEDED:
        return Finding("memory", OK, detail)
    status = WARN if free >= _TORCH_ALONE else PROBLEM
    fix = "shut down other notebooks and programs: a lesson takes up to 1.5 GiB"
    return Finding("memory", status, detail, fix)


def data_finding(error: str, found: Mapping[str, Path]) -> Finding:
    """The embedded images are intact; what else is here.

    Args:
        error: what is wrong with the embedded data set, "" if it is intact.
        found: folder by name, of the other data sets.
    """
    if error:
        detail, _, remedy = _one_line(error).partition(". To restore it: ")
        return Finding("data", PROBLEM, detail, remedy or _REINSTALL)
    others = [f"{name} in {folder}" for name, folder in found.items()]
    return Finding("data", OK, "; ".join(["fashion_mnist_small is intact", *others]))


def progress_finding(path: Path) -> Finding:
    """The folder of the progress file can be written, or made."""
    if path == Path(os.devnull):
        return Finding("progress", OK, f"not kept: CALIBCOURSE_PROGRESS is {path}")
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Finding("progress", OK, f"kept in {path}")
    fix = "set CALIBCOURSE_PROGRESS to a file that you may write, for example in your home folder"
    return Finding("progress", WARN, f"{existing} cannot be written: nothing is remembered", fix)


def container_memory(root: Path = Path("/")) -> int | None:
    """Bytes that the Linux control groups of this process leave it, version 1 or 2.

    Every group above the process counts. What the kernel would give back at once (inactive file
    cache) is not counted as used.

    Args:
        root: where /proc and /sys lie.

    Returns:
        The smallest remainder, or None where no group has a limit.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    remainders = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = "sys/fs/cgroup/memory"
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        # Inside a container the path may be the host's: groups that are not there are passed over.
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            remainders.append(_remainder((root / mount).joinpath(*parts[:depth]), *names))
    return min((free for free in remainders if free is not None), default=None)


def _remainder(group: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    """Limit minus usage of one control group; None if it has no limit or is not there."""
    try:
        limit = int((group / limit_name).read_text())  # "max" is no number: no limit
        usage = int((group / usage_name).read_text())
        pairs = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        cache = int(dict(pairs).get(cache_name, 0))
    except (OSError, ValueError):
        return None
    return max(0, limit - usage + cache)


def _system_memory() -> int | None:
    try:
        import psutil  # comes with ipykernel
    except ImportError:
        return None
    return psutil.virtual_memory().available


def _probe_torchvision() -> tuple[str | None, str, bool, Requirement]:
    """Version, import error, whether the operators loaded, and the torch that it asks for."""
    needs = _ANY_TORCH
    try:
        version = metadata.version("torchvision")
        required = map(Requirement, metadata.requires("torchvision") or ())
        needs = next((one for one in required if one.name == "torch"), needs)
        torchvision = import_torchvision()
    except metadata.PackageNotFoundError:
        return None, "", False, needs
    except Exception as error:  # whatever a broken installation raises
        return version, repr(error), False, needs
    return torchvision.__version__, "", torchvision.extension._has_ops(), needs


def _probe_gpu() -> tuple[str | None, str]:
    """Name of the first GPU and the error of a small computation on it."""
    device = default_device(float64=False).type
    if device == "cpu":
        return None, ""
    name = torch.cuda.get_device_name(0) if device == "cuda" else _MPS
    try:
        torch.ones(2, device=device).sum().item()
    except RuntimeError as error:
        return name, repr(error)
    return name, ""


def _declared_packages() -> tuple[list[str], dict[str, str], bool]:
    """What the metadata of calibcourse requires to run lessons, and what is installed."""
    required = []
    for line in metadata.requires("calibcourse") or ():
        requirement = Requirement(line)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": "lab"})
        if wanted and requirement.name not in ("torch", "torchvision"):
            required.append(requirement)
    installed = {}
    for requirement in required:
        try:
            installed[requirement.name] = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue
    return [str(requirement) for requirement in required], installed, host() == "Colab"


def _embedded_error() -> str:
    try:
        load_dataset("fashion_mnist_small")
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _found_datasets() -> dict[str, Path]:
    folders = {name: find_dataset(name) for name in DATASETS if name != "fashion_mnist_small"}
    return {name: folder for name, folder in folders.items() if folder}


def _counted(n: int, thing: str) -> str:
    return f"{n or 'no'} {thing}{'s' * (n != 1)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
