"""A prediction in a real JupyterLab: answered by keyboard before its result, shown beside it."""

import re

import nbformat
import pytest
from playwright.sync_api import Page, expect

from .conftest import ARTEFACTS, SECOND, Lab

pytestmark = pytest.mark.browser

NAME = "my_predictions.ipynb"
CELLS = (
    "from calibcourse import plots\nfrom calibcourse.exercises import lesson_01 as ex",
    "ex.predicted_accuracy.ask()\nex.predicted_ruin.ask()",
    "fig, (ax,) = plots.figure(1)\nax.set(xlim=(0, 1))\nax.axvline(0.83)\n"
    "ex.predicted_accuracy.mark(ax)\nplots.show(fig, alt='Accuracy')\n"
    "ex.predicted_accuracy.compare(0.83)\nex.predicted_ruin.compare('only the MCE')",
)


def test_a_prediction_is_answered_by_keyboard_and_stands_beside_its_result(lab: Lab, page: Page):
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}},
    )
    nbformat.write(notebook, lab.folder / "lessons" / NAME)
    page.goto(lab.address(NAME))
    status = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"Python 3.*\| Idle"))
    expect(status).to_be_visible(timeout=90 * SECOND)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")

    number, choice = (page.locator(".jp-OutputArea-output .widget-vbox").nth(k) for k in (0, 1))
    number.get_by_label("I expect").wait_for(timeout=120 * SECOND)
    number.get_by_label("I expect").focus()
    page.keyboard.type("95 %")
    page.keyboard.press("Tab")
    expect(number.get_by_label("How sure?")).to_be_focused()
    page.keyboard.type("80")  # the option that begins so
    page.keyboard.press("Tab")
    expect(number.get_by_role("button", name="Keep my prediction")).to_be_focused()
    page.keyboard.press("Space")
    expect(number.get_by_role("status")).to_contain_text("Kept: 95 %, 80 % sure")

    choice.get_by_role("button", name="only the ECE").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(choice.get_by_role("status")).to_contain_text("Chosen: only the MCE")
    choice.get_by_label("How sure?").focus()
    page.keyboard.type("60")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(choice.get_by_role("status")).to_contain_text("Kept: only the MCE, 60 % sure")
    for label in page.locator(".jp-OutputArea-output .widget-vbox label").all():
        assert label.evaluate("e => e.scrollWidth <= e.clientWidth"), "a label is cut off"
    page.screenshot(path=ARTEFACTS / "prediction-input.png")

    page.locator(".jp-CodeCell .cm-content").nth(2).click()
    page.keyboard.press("Shift+Enter")
    cards = page.locator(".calibcourse-prediction")
    expect(cards).to_have_count(2, timeout=60 * SECOND)
    expect(cards.first).to_contain_text(
        "95 %, 80 % sure to be within 5 percentage points: it is not"
    )
    expect(cards.last).to_contain_text("only the MCE, 60 % sure: right")
    cards.last.scroll_into_view_if_needed()
    page.screenshot(path=ARTEFACTS / "prediction-result.png")
