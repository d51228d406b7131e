"""`calibcourse build`: write, execute and check both notebooks of a lesson from its one source.

**How an author writes a lesson.** The source is `solutions/NN_name.py`, a jupytext percent script
(no YAML header needed), the only file edited by hand:

    # %% [markdown]
    # # 01 · Confidence and ECE
    #
    # One sentence that says what the reader will be able to do.
    #
    # {{header: lesson 00; a first course in PyTorch}}

    # %%
    # {{bootstrap}}

    # %%
    from calibcourse.exercises import lesson_01 as ex

    # %% tags=["nbval-ignore-output"]
    history = fit(model, data, lr=0.1, steps=300)

    # %%
    def my_ece(logits, target, n_bins=15):
        '''Docstring of the stub: shapes, what to return.'''
        ### BEGIN SOLUTION
        return ...
        ### END SOLUTION

- `{{header: PREREQUISITES}}`: a line of its own, once, in the first cell (which opens with the
  title, `# # ...`). It becomes "9 min to read · 52 min of exercises · 20 s to run on 2 CPU cores ·
  0.9 GB of memory · prerequisites: PREREQUISITES" and, once the course is published, the Binder and
  Colab badges. Reading is words at 150 a minute, the exercises' minutes are the sum of what they
  say of themselves; seconds and memory are measured at each build, rounded up to
  5 s and 0.1 GB and kept in the notebook's metadata, `{"calibcourse": {"seconds": 20,
  "peak_memory_gb": 0.9, "cores": 2}}`, so that checking needs no execution. Stored figures stay
  while a new measurement is within one such step of them.
- `# {{bootstrap}}`: the only line of a code cell, once. It becomes the cell that finds or installs
  `calibcourse` (`bootstrap.py`), the same in every notebook, silent where the package is there.
- `{{map}}`: a line of its own in a markdown cell. It becomes the table of all lessons, with links.
- `### BEGIN SOLUTION` and `### END SOLUTION`: lines of their own, in one code cell. The learner's
  copy has `...  # your code here` at the indentation of BEGIN instead; the copy with solutions has
  the block without its markers. Whatever resembles a marker but is not one stops the build.
- `# {{solution: 01/ece}}`, a line of its own in such a block, stands for what the exercise's
  reference does: a solution has one text, that of the exercise's module.
- `# fmt: skip` is a word to the source's formatter; it is left out of the notebooks.
- The tag `nbval-ignore-output`: the cell's outputs are not compared when the notebook is tested.
  Progress bars are off in builds and tests, so `fit` alone does not call for the tag.
- The tag `drawing`: the cell's code is folded away, its figure stands there. Code that calls
  `plots` and `widgets` alone is folded without it; neither may claim anything. Cells with a
  solution are tagged `exercise`, and look like it, without an author's doing.
- A widget is stored as its text (its repr), which must be the same in every run: the pictures
  beside it are its static twin's. The size and style rules of a lesson are in `rules.py`.

A cell's id is a hash of the lesson and the cell's source, so an edit changes one id and no other.
"""

import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import fields
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from .._files import staged, write_atomically
from .bootstrap import Address, read_address
from .source import (
    LESSON,
    SOLUTION,
    BuildError,
    Measured,
    find_sources,
    notebook_path,
    render,
)

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT = 600  # seconds


def kernel_environment(scratch: Path, kernels: int = 1) -> dict[str, str]:
    """Environment of a kernel that builds or tests a notebook, beside what is found.

    Short runs, no progress bars, the notebook's own picture format, nobody's progress, and none of
    the user's IPython start-up files.

    Args:
        scratch: a temporary folder.
        kernels: how many run at a time. They share the cores: threads that wait for a core which
            another kernel holds make a lesson ten times slower, not two.
    """
    threads = max(1, available_cores() // kernels)
    shared = {} if kernels == 1 else {"OMP_NUM_THREADS": str(threads)}
    return shared | {
        "CALIBCOURSE_PROFILE": "quick",
        "CALIBCOURSE_PROGRESS": os.devnull,
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "TQDM_DELAY": "1000000",  # seconds: TQDM_DISABLE does not reach notebook bars
    }


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def execute(notebook: NotebookNode, folder: Path, name: str, kernels: int = 1) -> Measured:
    """Run a notebook in its folder and store the outputs in it.

    Args:
        notebook: changed in place.
        folder: the kernel's working folder.
        name: the notebook, for the message.
        kernels: how many notebooks run at a time.

    Returns:
        Seconds and peak memory.

    Raises:
        BuildError: a cell raised, ran longer than 10 minutes or killed the kernel.
    """
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | kernel_environment(Path(scratch), kernels)
        with client.setup_kernel(env=environment):
            start = time.perf_counter()
            for index, cell in enumerate(notebook.cells):
                try:
                    client.execute_cell(cell, index)
                except CellExecutionError as error:
                    first = cell.source.strip().partition("\n")[0]
                    raise BuildError(
                        f"{name}, cell {index} ({first!r}) raised {error.ename}: {error.evalue}"
                    ) from None
                except (CellControlSignal, DeadKernelError) as error:
                    raise BuildError(f"{name}, cell {index}: {error}") from None
            seconds = time.perf_counter() - start
            peak = _peak_memory_gb(client.km.provisioner.pid)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            # JupyterLab shows "Error displaying widget" for a view whose model is gone; without
            # the view it shows the text.
            output.get("data", {}).pop(WIDGET_VIEW, None)
    return Measured(5 * math.ceil(seconds / 5), math.ceil(peak * 10) / 10, available_cores())


def _peak_memory_gb(pid: int) -> float:
    # Not getrusage: a child started from a larger process inherits that process's peak.
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        raise BuildError(
            "peak memory is read from /proc: build on Linux (Binder will do)"
        ) from None
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9


def build(
    root: Path,
    numbers: Sequence[str] = (),
    jobs: int = 1,
    log: Callable[[str], None] = print,
) -> None:
    """Write both notebooks of each lesson, executed.

    A lesson's two notebooks are written together once both have run; a lesson that fails keeps
    its old ones.

    Args:
        root: the folder that holds `lessons/` and `solutions/`.
        numbers: lessons to build; none means all.
        jobs: lessons built at a time. Times are measured under that load.
        log: told one line per notebook.

    Raises:
        BuildError: a source is wrong or a cell fails, naming lesson, cell and error.
    """
    address = read_address(root)
    sources = find_sources(root, numbers)
    for source in sources:  # every source is read before any is run
        render(source, LESSON)
    with ThreadPoolExecutor(jobs) as pool:
        for lines in pool.map(lambda source: _build_lesson(source, address, jobs), sources):
            for line in lines:
                log(line)


def _build_lesson(source: Path, address: Address | None, jobs: int) -> list[str]:
    texts, lines = {}, []
    for kind in (LESSON, SOLUTION):
        path = notebook_path(source, kind)
        path.parent.mkdir(exist_ok=True)
        name = f"{kind}/{path.name}"
        executed = render(source, kind)
        measured = execute(executed, path.parent, name, jobs)
        if path.exists():
            measured = measured.steadied(stored_measurement(read_notebook(path)))
        texts[path] = notebook_text(with_outputs(render(source, kind, address, measured), executed))
        lines.append(f"{name}: {measured.seconds} s, {measured.peak_memory_gb:.1f} GB")
    write_all(texts)
    return lines


def check(root: Path, numbers: Sequence[str] = ()) -> list[str]:
    """What in the notebooks differs from what their sources stand for; nothing is executed.

    Args:
        root: the folder that holds `lessons/` and `solutions/`.
        numbers: lessons to check; none means all.

    Returns:
        One line per difference, each with the remedy; empty when all is in step.
    """
    address = read_address(root)
    sources = find_sources(root, numbers)
    differences = [
        difference
        for source in sources
        for kind in (LESSON, SOLUTION)
        for difference in differs(source, kind, address)
    ]
    if not numbers:
        expected = {
            notebook_path(source, kind) for source in sources for kind in (LESSON, SOLUTION)
        }
        there = {path for kind in (LESSON, SOLUTION) for path in (root / kind).glob("[0-9]*.ipynb")}
        differences += [f"{path} has no source: delete it" for path in sorted(there - expected)]
    return differences


def differs(source: Path, kind: str, address: Address | None) -> list[str]:
    """How the stored notebook of a source differs from what `build` would write, outputs aside.

    `language_info` is the editor's: whoever opens a notebook has their Python's version there.
    """
    path = notebook_path(source, kind)
    name, remedy = f"{kind}/{path.name}", f"run `calibcourse build {source.name[:2]}`"
    if not path.exists():
        return [f"{name} is missing: {remedy}"]
    stored = read_notebook(path)
    expected = render(source, kind, address, stored_measurement(stored))
    if len(stored.cells) != len(expected.cells):
        return [f"{name} has {len(stored.cells)} cells, its source {len(expected.cells)}: {remedy}"]
    for index, (ours, theirs) in enumerate(zip(stored.cells, expected.cells, strict=True)):
        if any(
            ours.get(key) != theirs.get(key) for key in ("cell_type", "id", "source", "metadata")
        ):
            return [f"{name}, cell {index} differs from its source: {remedy}"]
    expected.metadata["language_info"] = stored.metadata.get("language_info")
    if path.read_text(encoding="utf-8") != notebook_text(with_outputs(expected, stored)):
        return [f"{name} is not written as `calibcourse build` writes it: {remedy}"]
    return []


def with_outputs(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """`notebook` with the outputs of `executed`, which has the same cells in the same order."""
    for cell, source in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = source.outputs, source.execution_count
    return notebook


def stored_measurement(notebook: NotebookNode) -> Measured | None:
    """The seconds and memory kept in a notebook's metadata; None if there are none."""
    stored = notebook.metadata.get("calibcourse")
    names = [field.name for field in fields(Measured)]
    if not isinstance(stored, dict) or sorted(stored) != sorted(names):
        return None
    if not all(isinstance(value, int | float) for value in stored.values()):
        return None
    return Measured(**stored)


def read_notebook(path: Path) -> NotebookNode:
    """A stored notebook.

    Raises:
        BuildError: the file is no notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises errors of many types
        raise BuildError(f"{path} is not a readable notebook: {error}") from None


def notebook_text(notebook: NotebookNode) -> str:
    """The bytes of a notebook file: the same for the same notebook."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def write_all(texts: dict[Path, str | None]) -> list[Path]:
    """Write several files, all or none: when one cannot be written, the others are put back.

    Args:
        texts: what each file is to hold; None deletes it.

    Returns:
        The files that changed.

    Raises:
        OSError: naming the file.
    """
    before = {path: path.read_bytes() if path.exists() else None for path in texts}
    after = {path: None if text is None else text.encode() for path, text in texts.items()}
    changed = [path for path in texts if after[path] != before[path]]
    with ExitStack() as stack:
        # All of it lies on the disk before one file changes: a disk that is full changes none, and
        # would have no room for putting back.
        changes = [stack.enter_context(_change(path, after[path])) for path in changed]
        try:
            for change in changes:
                change()
        except OSError:
            for path in changed:
                if before[path] != (path.read_bytes() if path.exists() else None):
                    _put_back(path, before[path])
            raise
    return changed


def _change(path: Path, content: bytes | None) -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(path.unlink) if content is None else staged(path, content)


def _put_back(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        write_atomically(path, content)
