"""Every lesson in a real JupyterLab: run, explored by keyboard, answered wrongly and rightly."""

import io
import re
from pathlib import Path

import nbformat
import pytest
from pictures import pictures
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from .conftest import ARTEFACTS, ROOT, SECOND, Lab

pytestmark = pytest.mark.browser

LESSONS = sorted(path.name for path in (ROOT / "lessons").glob("[0-9]*.ipynb"))
RUN_TIME = 240 * SECOND  # four times what a lesson may take on two idle cores


@pytest.fixture(params=LESSONS, ids=lambda name: name[:2])
def lesson(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_lesson_runs_explores_and_checks(lesson: str, lab: Lab, page: Page):
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    _open(page, lab, lesson)
    page.screenshot(path=ARTEFACTS / f"{lesson[:2]}-first-screen.png")
    _run_all(page)
    _every_cell_and_every_twin(page, lab, lesson)
    for index, explorer in enumerate(page.locator(".jp-OutputArea-output .widget-vbox").all()):
        _explore(page, explorer, f"{lesson[:2]}-explorer-{index}")
    _answer(page, lesson)


def _open(page: Page, lab: Lab, lesson: str) -> None:
    page.goto(lab.address(lesson))
    # The kernel's name shows first without its state: run only when it is really there.
    _wait_for_idle(page)
    expect(page.locator(".jp-Notebook .jp-Cell").first).to_be_visible()


def _wait_for_idle(page: Page, timeout: float = 90 * SECOND) -> None:
    status = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"Python 3.*\| Idle"))
    expect(status).to_be_visible(timeout=timeout)


def _menu(page: Page, menu: str, item: str) -> None:
    page.locator("#jp-MainMenu").get_by_text(menu, exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text(item, exact=True).click()


def _run_all(page: Page) -> None:
    _menu(page, "Edit", "Clear Outputs of All Cells")
    _menu(page, "Run", "Run All Cells")
    # The last cell with code is numbered once everything above it has run; an error ends it early.
    last = page.locator(".jp-CodeCell .jp-InputArea-prompt").last
    error = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    expect(last.filter(has_text=re.compile(r"\[\d+\]:")).or_(error).first).to_be_attached(
        timeout=RUN_TIME
    )
    assert error.count() == 0, error.first.inner_text()
    _wait_for_idle(page)


def _every_cell_and_every_twin(page: Page, lab: Lab, lesson: str) -> None:
    """What the saved file holds: every cell run once, in order, and a twin beside each explorer."""
    notebook = _saved(page, lab.folder / "lessons" / lesson)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in code]
    asks = [".ask()" in cell.source for cell in code]  # an input has no picture
    for above, here, below, asked in zip(
        [set(), *kinds], kinds, [*kinds[1:], set()], asks, strict=False
    ):
        if "application/vnd.jupyter.widget-view+json" in here and not asked:
            assert "image/png" in above | below, "an explorer has no static twin beside it"
    texts = {text for text, _ in pictures(notebook)} - {""}
    shown = page.locator(".jp-Notebook .jp-RenderedImage img")
    expect(shown.first).to_be_attached()
    for picture in shown.all():  # JupyterLab drops cells that are far away
        assert picture.get_attribute("alt") in texts, "a figure lacks its alternative text"


def _saved(page: Page, path: Path) -> nbformat.NotebookNode:
    """Save as a learner does, and read the file once it is whole: the server writes it in place."""
    before = path.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    for _ in range(120):
        page.wait_for_timeout(0.25 * SECOND)
        if path.stat().st_mtime_ns == before:
            continue
        try:
            return nbformat.read(path, as_version=4)
        except nbformat.reader.NotJSONError:
            continue
    raise AssertionError(f"{path.name} was not saved")


def _explore(page: Page, explorer: Locator, name: str) -> None:
    """Move every control of an explorer by keyboard and see its picture change, each time."""
    picture = explorer.locator("[role=img]")
    if picture.count() == 0:  # a progress bar
        return
    explorer.scroll_into_view_if_needed()
    explorer.screenshot(path=ARTEFACTS / f"{name}-before.png")
    controls = explorer.locator("[role=slider], select, input[type=checkbox], input[type=radio]")
    assert controls.count() > 0, "an explorer has no control that the keyboard reaches"
    for control in controls.all():
        before = picture.inner_html()
        control.focus()
        for key in ("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Space"):
            page.keyboard.press(key)
            if _changed(page, picture, before):
                break
        else:
            raise AssertionError(f"no key of {control} changed the picture of {name}")
    explorer.screenshot(path=ARTEFACTS / f"{name}-after.png")
    tops = {panel.bounding_box()["y"] for panel in picture.locator("img").all()}
    assert len(tops) == 1, "panels are not side by side in a window of 1280 pixels"
    page.set_viewport_size({"width": 800, "height": 900})
    explorer.screenshot(path=ARTEFACTS / f"{name}-narrow.png")
    for panel in picture.locator("img").all():
        box = panel.bounding_box()
        assert box["x"] + box["width"] <= 800, "a picture is cut off in a narrow window"
        assert box["width"] >= 300, "a picture is too small to read in a narrow window"
    for label in explorer.locator("label").all():
        assert label.evaluate("e => e.scrollWidth <= e.clientWidth"), "a label is cut off"
    page.set_viewport_size({"width": 1280, "height": 900})


def _changed(page: Page, picture: Locator, before: str, seconds: float = 8) -> bool:
    for _ in range(int(seconds / 0.25)):
        if picture.inner_html() != before:
            return True
        page.wait_for_timeout(0.25 * SECOND)
    return False


def _answer(page: Page, lesson: str) -> None:
    """A wrong and the right answer to the first exercise, and what the page says to them."""
    exercise = _first_exercise(lesson)
    if exercise is None:
        return
    solution, name = exercise
    wrong = _insert_before_check(
        solution, f"_right = {name}\n{name} = lambda *a, **k: 0 * _right(*a, **k)"
    )
    cell = page.locator(".jp-CodeCell").filter(has_text=f"def {name}(").first
    expect(cell).to_have_class(re.compile("calibcourse-exercise"))
    for source, word in ((wrong, "incorrect"), (solution, "correct")):
        cell.scroll_into_view_if_needed()
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(source)
        page.keyboard.press("Control+Enter")
        verdict = cell.locator(".jp-OutputArea-output strong").first
        expect(verdict).to_have_text(word, timeout=60 * SECOND)
        cell.locator(".jp-Cell-outputWrapper").screenshot(
            path=ARTEFACTS / f"{lesson[:2]}-answer-{word}.png"
        )
    progress = cell.locator("dt").filter(has_text="Progress").locator("+ dd")
    expect(progress).to_have_text(re.compile(r"^1 of \d+ here, \d+ of \d+ in all\. Next: "))


def _first_exercise(lesson: str) -> tuple[str, str] | None:
    """Source of the first solved cell that is checked, and the name of its function."""
    for cell in nbformat.read(ROOT / "solutions" / lesson, as_version=4).cells:
        checked = re.search(r"^ex\.\w+\.check\((\w+)\)", cell.source, flags=re.MULTILINE)
        if cell.cell_type == "code" and checked:
            return cell.source, checked[1]
    return None


def _insert_before_check(source: str, lines: str) -> str:
    head, check = source.rsplit("\nex.", 1)
    return f"{head}\n{lines}\nex.{check}"


def test_the_dark_theme_is_readable(lab: Lab, page: Page):
    """Contrast of text against its ground, in the card of a check, at least 4.5 to 1 (WCAG AA)."""
    _open(page, lab, LESSONS[1])
    page.locator("#jp-MainMenu").get_by_text("Settings", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Theme", exact=True).hover()
    page.locator(".lm-Menu-itemLabel").get_by_text("JupyterLab Dark", exact=True).click()
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    card = page.locator(".jp-OutputArea-output strong").first
    card.scroll_into_view_if_needed()
    page.screenshot(path=ARTEFACTS / "dark.png")
    shown = card.evaluate("e => getComputedStyle(e).color")
    ground = page.locator(".jp-Notebook").first.evaluate("e => getComputedStyle(e).backgroundColor")
    assert _contrast(shown, ground) >= 4.5
    # A drawing's ground is nearly the page's; photographs keep theirs.
    for kind, least, most in (("drawing", 1, 1.1), ("photographs", 10, 21)):
        picture = page.locator(f"img.calibcourse-{kind}").first
        picture.scroll_into_view_if_needed()
        corner = Image.open(io.BytesIO(picture.screenshot())).convert("RGB").getpixel((12, 12))
        assert least <= _contrast(f"rgb{corner}", ground) <= most, kind


def test_code_that_only_draws_is_folded_and_opens(lab: Lab, page: Page):
    _open(page, lab, LESSONS[0])
    cells = page.locator(".jp-CodeCell").filter(has=page.locator(".jp-RenderedImage"))
    figure = cells.filter(has=page.locator(".jp-InputPlaceholder")).locator("img").first
    expect(figure).to_be_visible()
    text = figure.get_attribute("alt")
    folded = cells.filter(has=page.get_by_alt_text(text, exact=True))  # once unfolded, still this
    expect(folded.locator(".cm-content")).to_be_hidden()
    folded.screenshot(path=ARTEFACTS / "folded.png")
    folded.locator(".jp-InputPlaceholder .jp-MoreHorizIcon").click()
    expect(folded.locator(".cm-content")).to_contain_text("plots.show")


def _contrast(first: str, second: str) -> float:
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    """Relative luminance of a CSS rgb() colour, as WCAG 2 defines it."""
    parts = [int(float(v)) / 255 for v in re.findall(r"[\d.]+", colour)[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
