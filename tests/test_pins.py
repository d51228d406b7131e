"""One set of versions and one test command, wherever they are written down."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import calibcourse

TOP = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEST_COMMAND = (
    "python3 -m venv .venv && "
    ".venv/bin/pip install -q -r requirements.txt -r tests/requirements.txt && "
    ".venv/bin/python -m pytest -n 2 --dist loadfile"
)


def lines(path):
    text = (TOP / path).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(path):
    """Version by package name; every requirement must be pinned with ==."""
    versions = {}
    for requirement in map(Requirement, (line for line in lines(path) if line[0] != "-")):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{path}: {requirement}"
        versions[requirement.name] = Version(specifier.version)
    return versions


def test_the_requirements_end_with_the_package_itself():
    assert lines("requirements.txt")[-1] == "-e ."


@pytest.mark.parametrize(
    "dependency",
    [*PROJECT["dependencies"], *(d for e in PROJECT["optional-dependencies"].values() for d in e)],
)
def test_every_dependency_is_pinned_within_its_range(dependency):
    requirement = Requirement(dependency)
    # An extra that no learner needs, such as `cluster`, is pinned with the tests.
    pinned = pins("tests/requirements.txt") | pins("requirements.txt")
    assert requirement.specifier.contains(pinned[requirement.name])


def test_torchvision_is_the_release_made_for_torch():
    tested = pins("requirements.txt")
    # torchvision 0.N is released with torch 2.(N - 15).
    assert tested["torch"].major == 2
    assert tested["torchvision"].release[:2] == (0, tested["torch"].minor + 15)


def test_no_version_is_pinned_twice_differently():
    course, tests = pins("requirements.txt"), pins("tests/requirements.txt")
    assert not [name for name in course.keys() & tests.keys() if course[name] != tests[name]]


def test_binder_installs_the_tested_versions_as_cpu_builds():
    tested, binder = pins("requirements.txt"), pins("binder/requirements.txt")
    # Binder's image brings JupyterLab and a kernel; the last three are for authors.
    assert tested.keys() - binder.keys() == {
        "jupyterlab",
        "ipykernel",
        "jupytext",
        "nbclient",
        "nbformat",
    }
    for name, version in binder.items():
        assert version.public == str(tested[name])
        assert version.local == ("cpu" if name in ("torch", "torchvision") else None)
    assert [line for line in lines("binder/requirements.txt") if line[0] == "-"] == [
        "--extra-index-url https://download.pytorch.org/whl/cpu"
    ]


@pytest.mark.parametrize("path", ["README.md", ".github/workflows/machines.yml"])
def test_the_install_lines_name_the_tested_torch(path):
    named = re.findall(r"\b(torch|torchvision)==(\S+)", (TOP / path).read_text(encoding="utf-8"))
    tested = pins("requirements.txt")
    assert named == [(name, str(tested[name])) for name in ("torch", "torchvision")]


def test_binder_runs_a_supported_python():
    (runtime,) = lines("binder/runtime.txt")
    assert SpecifierSet(PROJECT["requires-python"]).contains(runtime.removeprefix("python-"))


@pytest.mark.parametrize("path", ["README.md", ".ci/run", ".github/workflows/tests.yml"])
def test_there_is_one_test_command(path):
    assert TEST_COMMAND in (TOP / path).read_text(encoding="utf-8")


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has executable bits")
@pytest.mark.parametrize("path", [".ci/run", "binder/postBuild"])
def test_scripts_are_executable(path):
    assert os.access(TOP / path, os.X_OK)
    assert (TOP / path).read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")


def test_licence_and_version_are_cited_as_the_package_states_them():
    cited = dict(line.split(": ", 1) for line in lines("CITATION.cff") if ": " in line)
    assert cited["license"] == PROJECT["license"] == lines("LICENSE")[0].split()[0]
    assert cited["version"] == PROJECT["version"] == calibcourse.__version__
