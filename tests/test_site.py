"""The site: what a page is made of, and the whole of it for a course of one tiny lesson."""

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import ipywidgets
import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import calibcourse
from calibcourse import cli, plots, widgets
from calibcourse.course.bootstrap import parse_address
from calibcourse.course.drawing import only_draws
from calibcourse.course.formulas import mathml
from calibcourse.course.publish import publish
from calibcourse.course.site import site
from calibcourse.course.site.explorers import MOVING, film, moving_html
from calibcourse.course.site.extension import as_restructured
from calibcourse.course.site.generate import write_sources
from calibcourse.course.site.lessons import FIGURES, lesson_page

ROOT = Path(__file__).parents[1]
PNG = base64.b64encode(b"\x89PNG not looked at").decode()


def picture(alt: str) -> nbformat.NotebookNode:
    data = {"image/png": PNG, "text/plain": alt}
    return new_output(
        "display_data", data, metadata={"image/png": {"alt": alt, "width": 300, "drawing": True}}
    )


def page_of(*cells: nbformat.NotebookNode, **more) -> nbformat.NotebookNode:
    return lesson_page(new_notebook(cells=list(cells)), "01_tiny", **more).notebook


# ---------------------------------------------------------------------------------- a lesson


def test_a_picture_becomes_a_file_with_its_text():
    cell = new_code_cell("x", outputs=[picture('one < "two"'), picture("line\nbreak")])
    page = lesson_page(new_notebook(cells=[cell]), "01_tiny")
    assert list(page.figures) == ["01_tiny-1.png", "01_tiny-2.png"]
    assert page.figures["01_tiny-1.png"] == base64.b64decode(PNG)
    first, second = (output.data["text/markdown"] for output in page.notebook.cells[0].outputs)
    assert first == (
        f'<img src="{FIGURES}/01_tiny-1.png" alt="one &lt; &quot;two&quot;" width="300px" '
        'class="calibcourse-drawing">'
    )
    assert 'alt="line break"' in second
    assert cell.outputs[0].data["image/png"] == PNG  # the notebook itself is as it was


@pytest.mark.parametrize(
    ("source", "draws"),
    [
        ("plots.show(plots.overview(history), alt='x')", True),
        ("widgets.logits_explorer()", True),
        ("fig, axes = plots.figure(2)\nfor ax in axes:\n    ax.set_title('a')", True),
        ("fig, axes = plots.figure(2)\nfor ax, n in zip(axes, 'ab'):\n    ax.set_title(n)", True),
        ("fig, (a, b) = plots.figure(2)\nplots.one(a)\nb.set(title='t')\nplots.show(fig)", True),
        ("fig, ax = plots.figure(1)\nclaim('it falls', ok)", False),
        ("fig, (ax,) = plots.figure(1)\nex.predicted_worst.mark(ax, along='y')", True),
        ("ex.predicted_worst.compare(0.5)", False),
        ("for x in data:\n    plots.show(x)", False),
        ("error = measure(model)\nplots.show(error)", False),
        ("import torch", False),
        ("x = 1", False),
        ("%timeit plots.show(fig)", False),
        ("", False),
    ],
)
def test_code_that_only_draws_is_known(source, draws):
    assert only_draws(source) is draws


def test_plumbing_and_solutions_are_folded_and_other_code_is_not():
    hidden = new_code_cell("import calibcourse", metadata={"jupyter": {"source_hidden": True}})
    exercise = {"tags": ["exercise"]}
    cells = page_of(
        hidden,
        new_code_cell("plots.show(fig, alt='x')", outputs=[picture("x")]),
        new_code_cell("def f(x):\n    return 1\n\n\nex.ece.check(f)", metadata=exercise),
        new_code_cell("history = cc.fit(model, data)"),
    ).cells
    assert [cell.metadata.get("tags") for cell in cells] == [
        ["remove-cell"],
        ["hide-input"],
        ["exercise", "hide-input"],
        None,
    ]
    shown = [cell.metadata.get("mystnb", {}).get("code_prompt_show") for cell in cells]
    assert shown == [None, "Show the code of this figure", "Show a solution", None]


def test_a_badge_is_a_link_without_its_picture():
    address = parse_address("https://github.com/ada/course", "main")
    (cell,) = page_of(new_markdown_cell("# One\n\n" + address.badges("lessons/01.ipynb"))).cells
    assert "![" not in cell.source
    assert re.findall(r"\[[^\]]+\]\(https://", cell.source)


def explorer_cell() -> nbformat.NotebookNode:
    shown = new_output("execute_result", {"text/plain": "Explorer with steps"}, execution_count=1)
    return new_code_cell("widgets.step_explorer(x)", outputs=[shown], execution_count=1)


def test_an_explorer_moves_where_its_pictures_are_known_and_is_announced_elsewhere():
    (cell,) = page_of(explorer_cell(), explorer={"step_explorer": "<div>!</div>"}.get).cells
    assert cell.outputs[0].data == {"text/html": "<div>!</div>"}
    (cell,) = page_of(explorer_cell()).cells
    assert cell.outputs[0].data["text/markdown"].startswith("*Explorer with steps: ")


def test_an_input_of_a_prediction_is_what_it_asks():
    text = "✎ your prediction · Next\n  heads · tails\n  Run this cell to answer."
    shown = new_output("display_data", {"text/plain": text})
    (cell,) = page_of(new_code_cell("ex.predicted_side.ask()", outputs=[shown])).cells
    assert cell.metadata.tags == ["remove-input"]
    html = cell.outputs[0].data["text/html"]
    assert "heads · tails" in html and "Run this cell" not in html


# ---------------------------------------------------------------------------------- explorers


@pytest.fixture
def explorer() -> widgets.Explorer:
    """Two sliders and a choice, whose picture tells where they stand."""

    def draw(level: float, name: str, fixed: int) -> list:
        fig, (ax,) = plots.figure(1, 1.0, 1.0)
        ax.set_title(f"{name} {level}")
        return [fig]

    return widgets.Explorer(
        draw,
        lambda level, name, fixed: f"{name} at {level:g} beside {fixed}",
        level=widgets.slider("level", 0.5, 0.0, 1.0, 0.5),
        name=ipywidgets.SelectionSlider(options=["a", "b"], value="b", description="name"),
        fixed=widgets.slider("fixed", 3, 0, 9),
    )


def test_every_setting_has_its_picture(explorer):
    controls, pictures = film(explorer, ("level", "name"))
    assert [(c.label, c.values, c.start) for c in controls] == [
        ("level", ("0", "0.5", "1"), 1),
        ("name", ("a", "b"), 1),
    ]
    assert [picture.alt for picture in pictures] == [
        f"{name} at {level} beside 3" for level in ("0", "0.5", "1") for name in "ab"
    ]
    assert len({picture.panels for picture in pictures}) == 6


def test_the_sliders_begin_where_the_explorer_does(explorer):
    html, files = moving_html(*film(explorer, ("level", "name")), "../frames")
    data = json.loads(re.search(r"<script[^>]*>(.*)</script>", html)[1])
    assert data["values"] == [["0", "0.5", "1"], ["a", "b"]]
    assert 'aria-label="b at 0.5 beside 3"' in html
    assert html.index(data["frames"][3]["panels"][0]) < html.index("<script")
    assert {f"../frames/{name}" for name in files} == {f["panels"][0] for f in data["frames"]}


def test_the_explorers_that_move_are_ones_of_the_lessons():
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "solutions").glob("*.py"))
    used = set(re.findall(r"(?m)^widgets\.(\w+)\(", sources))
    assert set(MOVING) < used


def test_a_moving_explorer_is_made_of_records_and_formulas_alone():
    make, moved = MOVING["learning_rate_explorer"]
    made = make()
    controls, pictures = film(made, moved)
    assert len(pictures) == len(controls[0].values) > 2
    assert all(panel.startswith(b"\x89PNG") for picture in pictures for panel in picture.panels)


# ---------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("display", [False, True])
def test_a_formula_keeps_its_source(display):
    made = mathml(r"a < \frac{b}{c}", display)
    assert made.count("<math ") == made.count("</math>") == 1
    assert f'display="{"block" if display else "inline"}"' in made
    assert '<annotation encoding="application/x-tex">a &lt; \\frac{b}{c}</annotation>' in made


def test_every_formula_of_the_course_is_understood():
    """A command that latex2mathml does not know stays in the result with its backslash."""
    notebooks = sorted((ROOT / "solutions").glob("[0-9]*.ipynb"))
    cells = [cell for path in notebooks for cell in nbformat.read(path, as_version=4).cells]
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    formulas = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", prose, re.S)
    shown = {block or inline: mathml(block or inline, bool(block)) for block, inline in formulas}
    assert shown
    assert [tex for tex, made in shown.items() if "\\" in made.partition("<annotation")[0]] == []


# ---------------------------------------------------------------------------------- the reference


def test_a_table_of_a_docstring_is_a_table_and_a_bar_is_a_bar():
    table = ["| name | what |", "|---|---|", "| a, b | p |", "| c | |x| |"]
    assert as_restructured(["Before.", "", *table, "", "|u| at most 1", ">>> a | b"]) == [
        "Before.",
        "",
        *["", ".. list-table::", "   :header-rows: 1", ""],
        *["   * - name", "     - what", "   * - a, b", "     - p"],
        *["   * - c", r"     - \|x\|", ""],
        "",
        r"\|u\| at most 1",
        ">>> a | b",
    ]


# ---------------------------------------------------------------------------------- a fork


def test_the_workflow_publishes_what_the_command_writes():
    text = (ROOT / ".github/workflows/pages.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["pages"]
    assert job["permissions"] == {"contents": "read", "pages": "write", "id-token": "write"}
    (written,) = re.findall(r"calibcourse site --out (\S+)", text)
    (uploaded,) = (s["with"]["path"] for s in job["steps"] if "upload-pages" in s.get("uses", ""))
    assert uploaded == written
    assert "-e '.[site]' -c tests/requirements.txt" in text  # the tested versions


# ---------------------------------------------------------------------------------- the whole


class Page(HTMLParser):
    """What a page asks for, where it leads, and its anchors."""

    def __init__(self, path: Path):
        super().__init__()
        self.asked, self.links, self.ids, self.pictures = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a":
            self.links.append(found.get("href", ""))
        elif tag == "img":
            self.pictures.append(found.get("alt"))
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.asked.append(found["href"])
        elif "src" in found:
            self.asked.append(found["src"])


@pytest.fixture(scope="module")
def made(_built_once: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The site of the tiny course, and what was said while it was made."""
    out, said = tmp_path_factory.mktemp("site") / "site", []
    site(_built_once, out, said.append)
    return out, said


@pytest.mark.slow  # Sphinx makes all of it
def test_nothing_is_amiss(made):
    out, said = made
    assert said == [f"wrote {out / 'index.html'}"]


@pytest.mark.slow  # Sphinx makes all of it
def test_the_site_asks_no_other_server(made):
    out, _ = made
    pages = sorted(out.rglob("*.html"))
    assert len(pages) > 10
    asked = {(page.name, url) for page in pages for url in Page(page).asked}
    assert [pair for pair in asked if urlsplit(pair[1]).scheme not in ("", "data")] == []
    sheets = [*out.rglob("*.css"), *(path for path in out.rglob("*.js"))]
    fetched = r"@import|url\(\s*['\"]?(?:https?:)?//"
    assert [path.name for path in sheets if re.search(fetched, path.read_text("utf-8"))] == []


@pytest.mark.slow  # Sphinx makes all of it
def test_every_link_within_the_site_leads_somewhere(made):
    out, _ = made
    broken = []
    for page in out.rglob("*.html"):
        for link in Page(page).links:
            parts = urlsplit(link)
            if parts.scheme or not parts.path:
                continue
            if not (page.parent / unquote(parts.path)).exists():
                broken.append((page.name, link))
    assert broken == []


@pytest.mark.slow  # Sphinx makes all of it
def test_the_lesson_has_its_words_and_outputs(made):
    out, _ = made
    text = (out / "lessons/01_tiny.html").read_text(encoding="utf-8")
    assert "Five words stand here." in text and "cpu" in text
    assert "Explorer of nothing" in text
    assert "BEGIN SOLUTION" not in text


@pytest.mark.slow  # Sphinx makes all of it
def test_the_reference_has_every_public_name_and_its_source(made):
    out, _ = made
    ids = set().union(*(Page(page).ids for page in (out / "reference").glob("*.html")))
    names = {anchor.rpartition(".")[2] for anchor in ids if anchor}
    assert [name for name in calibcourse.__all__ if name not in names] == []
    assert (out / "_modules/calibcourse/losses.html").exists()
    assert (out / "theory.html").exists() and (out / "teaching/01_tiny.html").exists()


def test_a_folder_that_holds_something_else_is_left_alone(built_course, tmp_path):
    held = tmp_path / "held"
    held.mkdir()
    (held / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something that is no site"):
        site(built_course, held)
    assert (held / "thesis.txt").read_text() == "mine"


def test_a_published_course_shows_its_badges_as_links(built_course, tmp_path):
    publish(built_course, "https://github.com/ada/course", "main")
    write_sources(built_course, tmp_path / "source")
    texts = [
        (tmp_path / "source" / name).read_text(encoding="utf-8")
        for name in ("index.md", "lessons/01_tiny.ipynb")
    ]
    assert all("mybinder.org" in text and "badge" not in text.split("](")[0] for text in texts)
    assert all(not re.search(r"!\[[^\]]*\]\(http", text) for text in texts)


def test_the_benchmarks_come_along_with_their_figure(built_course, tmp_path):
    (built_course / "README.md").write_text("# Course\n\nBe [careful](LICENSE).\n\n## More\n")
    page = built_course / ".github/benchmarks.md"
    page.parent.mkdir()
    page.write_text("# Peers\n\n| [fast](x.md) |\n|---|\n\n![Lines](../growth.png)\n")
    (built_course / "growth.png").write_bytes(b"a figure")
    source = tmp_path / "source"
    assert write_sources(built_course, source) == "Course"
    assert "![Lines](figures/growth.png)" in (source / "benchmarks.md").read_text()
    assert (source / "figures/growth.png").read_bytes() == b"a figure"
    index = (source / "index.md").read_text()
    assert "Be careful." in index and "fast" not in index  # no link that leads nowhere
    assert "lessons/01_tiny.ipynb" in index


def test_a_lesson_that_is_not_built_is_named(course, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(course)
    assert cli.main(["site", "--out", str(tmp_path / "site")]) == 2
    assert "run `calibcourse build 01`" in capsys.readouterr().err


def test_the_missing_extra_is_named(built_course, monkeypatch, capsys):
    monkeypatch.chdir(built_course)
    monkeypatch.setitem(sys.modules, "calibcourse.course.site", None)
    assert cli.main(["site"]) == 2
    assert "[site]" in capsys.readouterr().err
