"""What `pytest` adds for notebooks and examples: no file of the learner's is touched, `--offline`.

pyproject.toml loads this with `-p`, so that it serves `pytest` alike from the course's folder, from
`lessons/`, and for a single notebook.
"""

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path

import pytest

SANITIZE = Path("tests/nbval_sanitize.cfg")
OFFLINE = Path("tests/offline")
PACKAGE = Path("calibcourse")
SOLUTIONS = Path("solutions")
WORK = "work"
_SCRATCH = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Define `--offline`."""
    parser.addoption(
        "--offline",
        action="store_true",
        help="refuse every connection but loopback, here and in child Python processes",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell nbval what to sanitise, make a scratch folder, and go offline if asked to."""
    if config.getoption("nbval_sanitize_with", None) is None:
        config.option.nbval_sanitize_with = str(config.rootpath / SANITIZE)
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    config.stash[_SCRATCH] = Path(scratch.name)
    config.add_cleanup(scratch.cleanup)
    if config.getoption("offline"):
        if config.pluginmanager.has_plugin("socket"):  # pytest-socket puts `connect` back
            config.pluginmanager.unregister(name="socket")
        _go_offline(config.rootpath / OFFLINE)


def _go_offline(folder: Path) -> None:
    # Every Python imports `sitecustomize` when it starts, notebook kernels too.
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{inherited}" if inherited else str(folder)
    spec = importlib.util.spec_from_file_location("offline", folder / "sitecustomize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.block()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over a learner's copies, in `work/` or `my_*.ipynb`; what is named is not asked for.

    Also over Python files that are neither a test nor a module of the package: to look for their
    examples, `--doctest-modules` would import them, and a lesson's source trains networks.
    """
    path = collection_path
    if path.suffix == ".py" and not path.match("test_*.py"):
        return None if path.is_relative_to(config.rootpath / PACKAGE) else True
    return True if path.match("my_*.ipynb") or path == config.rootpath / WORK else None


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the solutions' notebooks to `-m slow`, unless they are named.

    They compute what the lessons' do, whose exercises go on with the reference where a learner has
    no answer yet: run beside each other, every network is trained twice.
    """
    folder = config.rootpath / SOLUTIONS
    places = {config.invocation_params.dir / name.partition("::")[0] for name in config.args}
    if places == {folder} or any(folder in place.parents for place in places):
        return
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item):
    """Start the kernel of a notebook (while its first cell is set up) as a build would start it."""
    if item.path.suffix != ".ipynb":
        return (yield)
    from .build import kernel_environment

    scratch = item.config.stash[_SCRATCH] / hashlib.sha256(bytes(item.path)).hexdigest()
    scratch.mkdir(exist_ok=True)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in kernel_environment(scratch, workers).items():
            patch.setenv(name, value)
        return (yield)
