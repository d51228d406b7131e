"""The README and the contributors' pages show what the code made, and name what is there."""

import re
from pathlib import Path

import nbformat
import pytest
from pictures import pictures

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / ".github" / "overview.png"


def test_the_figure_is_the_one_lesson_00_drew():
    """After a new build of lesson 00: write the picture found here to .github/overview.png."""
    notebook = nbformat.read(ROOT / "solutions" / "00_start_here.ipynb", as_version=4)
    drawn = [png for text, png in pictures(notebook) if text.startswith("Four moments")]
    assert drawn == [FIGURE.read_bytes()]


PAGES = [ROOT / "README.md", *sorted((ROOT / ".github").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_the_repository_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\b(?:calibcourse|tests|solutions|lessons)/[\w./-]*", text)
    paths = {name.rstrip(".") for name in named if "NN_" not in name and "_NN" not in name}
    # A learner's own copies are not in the repository.
    missing = [name for name in paths if "my_" not in name and not (ROOT / name).exists()]
    assert missing == []


def test_each_way_to_contribute_is_linked():
    folder = ROOT / ".github"
    pages = {path.relative_to(folder) for path in PAGES if path.parent.name == "contributing"}
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(pages) == 5
    assert [path for path in pages if f"]({path.as_posix()})" not in text] == []
