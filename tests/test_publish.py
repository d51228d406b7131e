"""Publishing: every file follows the address, none is left behind, undoing restores all bytes."""

import importlib.util
import itertools
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from packaging.requirements import Requirement

from calibcourse.course.bootstrap import (
    ADDRESS_FILE,
    bootstrap_cell,
    parse_address,
    read_address,
)
from calibcourse.course.build import check, read_notebook
from calibcourse.course.publish import publish, readme_differs, unpublish
from calibcourse.course.source import LESSON, render

ROOT = Path(__file__).parents[1]
REPO = "https://github.com/ada/calibration-course"
NOTEBOOKS = ("lessons/01_tiny.ipynb", "solutions/01_tiny.ipynb")


@pytest.mark.parametrize("ref", ["main", "v1.0", "feature/x-1", "0a1b2c3d", "release_2.1"])
@pytest.mark.parametrize("ending", ["", ".git"])
def test_addresses_are_read(ref, ending):
    address = parse_address(REPO + ending, ref)
    assert (address.repo, address.ref) == (REPO, ref)
    assert address.archive == f"{REPO}/archive/{ref}.zip"


@pytest.mark.parametrize(
    "repo",
    [
        "",
        "ada/course",
        "http://github.com/ada/course",
        "https://github.com/ada",
        "https://github.com/ada/course/tree/main",
        "https://github.com/ada/..",
        "https://github.com/-ada/course",
        "https://github.com/ada/co urse",
        "https://github.com.evil.org/ada/course",
        "https://gitlab.com/course",
        "https://gitlab.com/ada//course",
        "https://gitlab.com/ada/../course",
        "https://gitlab.com/ada/course/-/tree/main",
        "https://gitlab.example.org/ada/course",
        "git@github.com:ada/course.git",
        'https://github.com/ada/course")',
        None,
    ],
)
def test_what_is_no_repository_is_refused(repo):
    with pytest.raises(ValueError, match=r"repo must be https://github.com/OWNER/NAME"):
        parse_address(repo, "main")


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "-main",
        "/main",
        "main/",
        "a..b",
        "a//b",
        "a b",
        "main.lock",
        "x.lock/y",
        'm"',
        "a/.b",
        "main.",
        "m\n",
        "ä",
        "x" * 201,
        None,
    ],
)
def test_what_is_no_reference_is_refused(ref):
    with pytest.raises(ValueError, match="ref must name a branch, a tag or a commit"):
        parse_address(REPO, ref)


def test_on_gitlab_there_is_binder_and_no_colab():
    address = parse_address("https://gitlab.com/uni/maths/course.git", "week/1")
    assert address.repo == "https://gitlab.com/uni/maths/course"
    assert address.archive == f"{address.repo}/-/archive/week/1/course-week-1.zip"
    badges = address.badges("lessons/00 start.ipynb")
    assert "/v2/gl/uni%2Fmaths%2Fcourse/week%2F1?labpath=lessons%2F00%20start.ipynb)" in badges
    assert "colab" not in badges


def test_the_link_for_a_hub_says_where_from_and_what_to_open():
    link = urlsplit(parse_address(REPO, "feature/x").pull_link("lessons/01_tiny.ipynb"))
    assert link.path == "/hub/user-redirect/git-pull"
    assert parse_qs(link.query) == {
        "repo": [REPO],
        "branch": ["feature/x"],
        "urlpath": ["lab/tree/calibration-course/lessons/01_tiny.ipynb"],
    }


def test_publishing_reaches_every_file_and_undoing_restores_every_byte(built_course, snapshot):
    before = snapshot(built_course)
    changed = publish(built_course, REPO + ".git", "feature/x")
    assert changed == [str(ADDRESS_FILE), "README.md", *NOTEBOOKS]
    assert check(built_course) == readme_differs(built_course) == []
    bootstraps = set()
    for name in NOTEBOOKS:
        first, bootstrap, *_ = read_notebook(built_course / name).cells
        assert f"/blob/feature/x/{name})" in first.source
        assert "/gh/ada/calibration-course/feature%2Fx?labpath=" in first.source
        assert f"labpath={name.replace('/', '%2F')})" in first.source
        bootstraps.add(bootstrap.source)
    assert bootstraps == {bootstrap_cell(parse_address(REPO, "feature/x"))}
    readme = (built_course / "README.md").read_text()
    assert readme.count("badge") == 4 and "/blob/feature/x/lessons/01_tiny.ipynb)" in readme

    assert publish(built_course, "https://github.com/fork/course", "main")
    followers = [built_course / name for name in ("README.md", ADDRESS_FILE, *NOTEBOOKS)]
    assert all("fork/course" in path.read_text() for path in followers)
    assert not any("ada/" in path.read_text() for path in followers)

    assert unpublish(built_course) == changed
    assert snapshot(built_course) == before
    assert unpublish(built_course) == []


def test_a_build_after_publishing_keeps_the_badges(built_course):
    publish(built_course, REPO, "main")
    source = built_course / "solutions/01_tiny.py"
    stamped = render(source, LESSON, read_address(built_course))
    assert "colab-badge.svg" in stamped.cells[0].source and REPO in stamped.cells[1].source


def test_what_is_out_of_step_is_not_stamped(built_course, snapshot):
    (built_course / "README.md").write_text("# Course\n<!-- badges --><!-- /badges -->\n")
    before = snapshot(built_course)
    with pytest.raises(ValueError, match=r"nothing was stamped: README\.md: the lines between"):
        publish(built_course, REPO, "main")
    for text in ("# Course\n", "<!-- /badges --><!-- badges -->"):
        (built_course / "README.md").write_text(text)
        with pytest.raises(ValueError, match=r"README\.md must hold <!-- badges -->"):
            publish(built_course, REPO, "main")
    (built_course / "README.md").write_bytes(before["README.md"])
    (built_course / "solutions/01_tiny.ipynb").unlink()
    with pytest.raises(ValueError, match=r"nothing was stamped: solutions/01_tiny\.ipynb"):
        publish(built_course, REPO, "main")


def test_all_files_are_stamped_or_none(built_course, snapshot, monkeypatch):
    before, replace = snapshot(built_course), os.replace
    renames = itertools.count(1)

    def fourth_fails(source, target):  # by then three files have changed
        if next(renames) == 4:
            raise OSError("torn off")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fourth_fails)
    with pytest.raises(OSError, match="torn off"):
        publish(built_course, REPO, "main")
    assert snapshot(built_course) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"repo": "x"}', '{"repo": 1, "ref": 2}', '{"a": 1}'])
def test_a_broken_address_file_is_named(built_course, text):
    (built_course / ADDRESS_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"published\.json|repo must be"):
        check(built_course)


# ---------------------------------------------------------------------------- the bootstrap cell

UNPUBLISHED, PUBLISHED = bootstrap_cell(None), bootstrap_cell(parse_address(REPO, "v1"))


def test_the_cell_is_silent_where_calibcourse_is_there(capsys, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    for cell in (UNPUBLISHED, PUBLISHED, PUBLISHED):
        exec(cell, {})
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("cell", [UNPUBLISHED, PUBLISHED])
def test_elsewhere_the_cell_stops_with_the_command(missing, monkeypatch, cell):
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    with pytest.raises(ModuleNotFoundError) as error:
        exec(cell, {})
    assert f'"{sys.executable}" -m pip install -r requirements.txt\n' in str(error.value)


def test_on_colab_the_cell_installs_without_touching_torch(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", object())
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda *a, **options: calls.append((*a, options)))
    exec(PUBLISHED, {})
    ((command, options),) = calls
    assert command[1:] == (
        ["-m", "pip", "install", "--quiet", "--no-deps", f"{REPO}/archive/v1.zip"]
    )
    assert command[0] == sys.executable and options == {"check": True}


def test_on_colab_an_unpublished_copy_says_so(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    with pytest.raises(ModuleNotFoundError, match="no published address"):
        exec(UNPUBLISHED, {})


def test_colab_has_whatever_the_package_requires():
    """Preinstalled there, or required by what is."""
    there = {"torch", "torchvision", "matplotlib", "ipywidgets", "tqdm"}
    come_along = {Requirement(line).name for name in there for line in metadata.requires(name)}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {Requirement(line).name for line in needed} <= there | come_along
