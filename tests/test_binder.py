"""Binder: what it would build from the folder, and that a lesson fits into what it lends."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from calibcourse.course.build import kernel_environment, read_notebook, stored_measurement

TOP = Path(__file__).resolve().parents[1]
LENT = 2 * 1024**3  # bytes of memory that mybinder.org gives a session at most


@pytest.fixture(scope="module")
def dockerfile(tmp_path_factory) -> str:
    """What repo2docker would build; it needs no Docker to say so."""
    folder = tmp_path_factory.mktemp("course")
    # Everything at the top that repo2docker could take for a recipe, had it not found binder/.
    shutil.copytree(TOP / "binder", folder / "binder")
    for name in ("requirements.txt", "pyproject.toml", "README.md"):
        shutil.copy(TOP / name, folder / name)
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout + run.stderr


def test_binder_takes_its_own_requirements_and_then_the_package(dockerfile):
    install = dockerfile.index('pip install --no-cache-dir -r "binder/requirements.txt"')
    copy = dockerfile.index("COPY --chown=0:0 src/ ${REPO_DIR}/")
    package = dockerfile.index("RUN ./binder/postBuild")
    # The heavy layer stands before the repository is copied: an edited lesson does not rebuild it.
    assert install < copy < package
    assert 'pip install --no-cache-dir -r "requirements.txt"' not in dockerfile


def test_binder_has_a_python_that_the_package_admits(dockerfile):
    assert (TOP / "binder/runtime.txt").read_text(encoding="utf-8").strip() == "python-3.11"
    assert "Building conda environment for python=3.11" in dockerfile


def test_the_scripts_of_binder_are_executable_and_stop_at_an_error():
    script = TOP / "binder/postBuild"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")


@pytest.mark.slow  # a lesson that nbval runs anyway, with its memory limited
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_the_heaviest_lesson_runs_in_the_memory_that_binder_lends(tmp_path):
    paths = sorted((TOP / "solutions").glob("*.ipynb"))
    needs = {path: stored_measurement(read_notebook(path)).peak_memory_gb for path in paths}
    heaviest = max(needs, key=needs.get)
    shutil.copy(heaviest, tmp_path / heaviest.name)
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", heaviest.name]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | kernel_environment(tmp_path, kernels=2),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LENT, LENT)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    executed = nbformat.read(tmp_path / heaviest.name, as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
