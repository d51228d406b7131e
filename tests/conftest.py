"""What all unit tests share. For notebooks see calibcourse/course/pytest_plugin.py."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from threading import RLock

import pytest
import torch
from hypothesis import HealthCheck, settings
from tqdm.auto import tqdm

ROOT = Path(__file__).parents[1]

# Forked processes share the lock of tqdm's progress bars, and one that is killed never gives it
# back: the next bar, even one that is not shown, would wait for ever. This lock is each one's own.
tqdm.set_lock(RLock())

# A busy machine is no defect, and the same examples come again in every run.
settings.register_profile(
    "course",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
settings.load_profile("course")


def pytest_configure() -> None:
    """Let xdist's workers share the cores: threads that wait for another's core cost much time."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # of children


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine has no device for, and browser and Colab unless `-m` names them."""
    no_gpu = pytest.mark.skip(reason="needs a real CUDA device")
    for item in items:
        marker = item.get_closest_marker("cuda")
        if marker and "real" in marker.args and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        for place in ("browser", "colab"):
            if item.get_closest_marker(place) and place not in config.getoption("markexpr"):
                reason = f"run with `pytest -m {place} tests/{place}`"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def _own_progress(tmp_path_factory: pytest.TempPathFactory):
    """The exercises' results of a test run are not the learner's."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("progress") / "progress.json"
        patch.setenv("CALIBCOURSE_PROGRESS", str(path))
        yield


@pytest.fixture(autouse=True)
def _device_for_cuda_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where there is no GPU, the tests marked `cuda` run on a pretend one."""
    if request.node.get_closest_marker("cuda") and not torch.cuda.is_available():
        from pretend_device import pretend_device

        with pretend_device():
            yield
    else:
        yield


@pytest.fixture
def impatience() -> Iterator[None]:
    """Turn waiting for ever, for a pipe or a lock, into a failure, on the busiest machine too."""

    def give_up(*_: object) -> None:
        raise AssertionError("still waiting after ten minutes")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def kill(impatience: None) -> Callable[..., int]:
    """A function that starts a process, kills it at its work and waits for its end."""
    if not hasattr(os, "fork"):
        pytest.skip("starting a fresh interpreter for every kill takes too long")

    def start_and_kill(target: Callable, *arguments: object, after: Sequence[tuple] = ()) -> int:
        """Kill once so many changes of one file or folder, then of the next, have been seen.

        Counted, not timed: a busy machine makes the process slower and nothing else.

        Args:
            target: the process runs it.
            arguments: of `target`.
            after: counts of changes, each with the path of a file or folder; without any, the
                process ends itself.

        Returns:
            The exit code: minus SIGKILL, unless the process ended before.
        """
        child = get_context("fork").Process(target=target, args=arguments)
        child.start()
        for changes, path in after:
            before = _state(path)
            while changes and child.exitcode is None:
                os.sched_yield()
                now = _state(path)
                changes -= now != before
                before = now
        if after:
            child.kill()
        child.join()
        return child.exitcode

    return start_and_kill


def _state(path: Path) -> set[tuple]:
    """What tells one moment of a file, or of a folder and all in it, from the next."""
    found = set()
    for place in [path, *(Path(top, name) for top, _, files in os.walk(path) for name in files)]:
        with suppress(FileNotFoundError):
            state = place.stat()
            found.add((place, state.st_ino, state.st_size, state.st_mtime_ns))
    return found


TINY_LESSON = '''\
# %% [markdown]
# # 01 · Tiny
#
# {{header: none}}
#
# Five words stand here.

# %%
# {{bootstrap}}

# %%
import os

import ipywidgets
from tqdm.auto import tqdm

assert os.environ["CALIBCOURSE_PROFILE"] == "quick"
with open(os.environ["CALIBCOURSE_PROGRESS"], "w") as file:
    file.write("not the learner's")
for _ in tqdm(range(3)):
    pass
device = "cpu"
print(device)

# %%
class Explorer(ipywidgets.VBox):
    def __repr__(self):
        return "Explorer of nothing"


Explorer([ipywidgets.HTML("x")])

# %% tags=["nbval-ignore-output"]
def answer(x):
    """x -> x + 1."""
    if x is None:
        ### BEGIN SOLUTION
        x = 0
        ### END SOLUTION
    ### BEGIN SOLUTION
    y = x + 1
    return y
    ### END SOLUTION


answer(1), os.getpid()  # fmt: skip
'''


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of one tiny lesson, not built."""
    return _write_course(tmp_path / "course")


@pytest.fixture(scope="session")
def _built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from calibcourse.course.build import build

    root = _write_course(tmp_path_factory.mktemp("built") / "course")
    build(root, log=lambda line: None)
    return root


@pytest.fixture
def built_course(_built_once: Path, tmp_path: Path) -> Path:
    """A course of one tiny lesson, built; the test may change it."""
    return shutil.copytree(_built_once, tmp_path / "built")


def _write_course(root: Path) -> Path:
    for folder in ("lessons", "solutions", "calibcourse/course"):
        (root / folder).mkdir(parents=True)
    (root / "solutions/01_tiny.py").write_text(TINY_LESSON, encoding="utf-8")
    (root / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (root / "README.md").write_text("# Course\n\n<!-- badges -->\n<!-- /badges -->\n\nText.\n")
    shutil.copytree(ROOT / "tests/offline", root / "tests/offline")
    shutil.copy(ROOT / "tests/nbval_sanitize.cfg", root / "tests")
    return root


@pytest.fixture(scope="session")
def copy_course() -> Callable[[Path], Path]:
    """A function that copies the real course, as far as it is published, to a new folder."""

    def copy(root: Path) -> Path:
        leave = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "my_*")
        for name in ("lessons", "solutions", "calibcourse"):
            shutil.copytree(ROOT / name, root / name, ignore=leave)
        for name in ("README.md", "pyproject.toml", "requirements.txt", ".gitignore"):
            shutil.copy(ROOT / name, root / name)
        return root

    return copy


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """A function from a folder to the content of each file in it."""
    return lambda root: {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
