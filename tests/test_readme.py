"""The README shows what the code made, and links only to what is there."""

import base64
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / ".github" / "overview.png"


def test_the_figure_is_the_one_lesson_00_drew():
    """After a new build of lesson 00: write the picture found here to .github/overview.png."""
    notebook = nbformat.read(ROOT / "solutions" / "00_start_here.ipynb", as_version=4)
    pictures = [
        base64.b64decode(output.data["image/png"])
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("metadata", {}).get("image/png", {}).get("alt", "").startswith("Four moments")
    ]
    assert pictures == [FIGURE.read_bytes()]


def test_every_link_into_the_repository_leads_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
