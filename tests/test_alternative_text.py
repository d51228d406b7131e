"""What gives images their alternative text where JupyterLab and nbconvert drop it."""

import base64
import html
import json
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output
from pictures import pictures

import calibcourse

ROOT = Path(__file__).parents[1]
JUPYTER = ROOT / "calibcourse/course/jupyter"
PIXEL = base64.b64encode(b"a picture").decode()


def exported(notebook: nbformat.NotebookNode) -> str:
    folder = str(JUPYTER)
    exporter = HTMLExporter(template_name="nbconvert", extra_template_basedirs=[folder])
    return exporter.from_notebook_node(notebook)[0]


@pytest.mark.parametrize("text", ["Left: ECE falls.", 'ε < 1 & "doubt" > 0\'s <b>half</b>', ""])
def test_an_exported_page_says_what_a_figure_shows(text):
    metadata = {"image/png": {"alt": text, "width": 5}} if text else {}
    output = new_output("display_data", {"image/png": PIXEL}, metadata=metadata)
    page = exported(new_notebook(cells=[new_code_cell("", outputs=[output])]))
    (image,) = re.findall(r"<img [^>]*>", page)
    assert html.unescape(re.search('alt="([^"]*)"', image)[1]) == text
    assert image.count("src=") == 1 and f"base64,{PIXEL}" in image


def test_every_figure_of_a_lesson_arrives_in_the_page():
    path = next((ROOT / "lessons").glob("01_*.ipynb"))
    notebook = nbformat.read(path, as_version=4)
    texts = [text for text, _ in pictures(notebook)]
    page = exported(notebook)
    assert [html.unescape(t) for t in re.findall('<img alt="([^"]*)"', page)] == texts != []


def test_an_exported_page_marks_drawings_and_exercises():
    def shown(drawing: bool):
        metadata = {"image/png": {"alt": "x", "drawing": drawing}}
        return new_output("display_data", {"image/png": PIXEL}, metadata=metadata)

    cells = [
        new_code_cell("draw_it()", outputs=[shown(True)]),
        new_code_cell("photograph_it()", outputs=[shown(False)]),
        new_code_cell("answer_it()", metadata={"tags": ["exercise"]}),
    ]
    page = exported(new_notebook(cells=cells))
    first, second = re.findall(r"<img [^>]*>", page)
    assert "data-drawing" in first and "data-drawing" not in second
    (exercise,) = re.findall(r'class="([^"]*celltag_exercise[^"]*)"', page)
    assert "jp-CodeCell" in exercise


def test_an_exported_page_folds_what_a_lesson_folds():
    shown, folded = new_code_cell("1 + 1"), new_code_cell("2 + 2")
    folded.metadata["jupyter"] = {"source_hidden": True}
    page = exported(new_notebook(cells=[shown, folded]))
    (details,) = re.findall("<details>.*?</details>", page, re.DOTALL)
    assert re.sub("<[^>]*>", "", details).count("2 + 2") == 1 and "1 + 1" not in details


def test_jupyter_finds_them_where_the_course_is_installed():
    here = Path(sys.prefix) / "share/jupyter"
    for folder, place in (("labextension", "labextensions"), ("nbconvert", "nbconvert/templates")):
        for source in (JUPYTER / folder).rglob("*.*"):
            found = here / place / "calibcourse" / source.relative_to(JUPYTER / folder)
            assert found.read_bytes() == source.read_bytes(), "pip install -r requirements.txt"


def test_the_extension_is_of_this_version():
    package = json.loads((JUPYTER / "labextension/package.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert package["name"] == project["name"]
    assert package["version"] == project["version"] == calibcourse.__version__
    load = package["jupyterlab"]["_build"]["load"]
    assert (JUPYTER / "labextension" / load).is_file()
