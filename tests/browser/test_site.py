"""The site in a browser, served as any host serves files: on a phone, by keyboard, for all."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from calibcourse.course.site import site

from .conftest import ARTEFACTS, ROOT

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}
KINDS = (
    "index.html",
    "lessons/03_gauss_newton_curvature.html",
    "lessons/07_margin_aware_training.html",
    "teaching.html",
    "teaching/01_confidence_and_ece.html",
    "theory.html",
    "reference/metrics.html",
    "_modules/calibcourse/losses.html",
)
NAMES = [path.stem for path in sorted((ROOT / "solutions").glob("[0-9]*.ipynb"))]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the site of the whole course is served, on loopback."""
    folder = tmp_path_factory.mktemp("site") / "site"
    site(ROOT, folder)
    serve = functools.partial(_Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def reader(page: Page) -> Iterator[Page]:
    """A page that fails the test for a word in the console or a file that is missing."""
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("response", lambda got: said.append(f"{got.status} {got.url}") if not got.ok else None)
    yield page
    assert said == []


@pytest.mark.parametrize("path", [*KINDS, *(f"lessons/{name}.html" for name in NAMES)])
def test_a_page_is_whole_on_a_phone(path: str, address: str, reader: Page):
    reader.set_viewport_size(PHONE)
    reader.goto(f"{address}/{path}")
    assert reader.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    pictures = reader.locator("main img, article img").all()
    for picture in pictures:
        if not picture.evaluate("e => e.closest('[role=img]')?.getAttribute('aria-label')"):
            assert (picture.get_attribute("alt") or "").strip(), picture.get_attribute("src")
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("e => e.naturalWidth") > 0
    _photograph(reader, path, "phone")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", KINDS)
def test_no_barrier_is_found(path: str, theme: str, address: str, reader: Page):
    reader.emulate_media(color_scheme=theme)
    reader.goto(f"{address}/{path}")
    found = Axe().run(reader)
    _photograph(reader, path, theme)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("name", ["03_gauss_newton_curvature", "07_margin_aware_training"])
def test_an_explorer_moves_by_keyboard(name: str, address: str, reader: Page):
    reader.goto(f"{address}/lessons/{name}.html")
    explorer = reader.locator(".explorer")
    picture = explorer.get_by_role("img")
    sliders = explorer.get_by_role("slider")
    assert sliders.count() > 0
    for slider in sliders.all():
        expect(slider).to_have_accessible_name(slider.locator("xpath=../span").inner_text())
        before = _state(picture)
        value = slider.get_attribute("aria-valuetext")
        slider.focus()
        reader.keyboard.press("Home" if slider.input_value() != "0" else "End")
        assert _state(picture) != before
        assert slider.get_attribute("aria-valuetext") != value
        panel = picture.locator("img").first
        expect(panel).to_have_js_property("complete", True)
        assert panel.evaluate("e => e.naturalWidth") > 0
    explorer.screenshot(path=ARTEFACTS / f"site-explorer-{name[:2]}.png")


def _state(picture) -> tuple[str, list[str]]:
    panels = [panel.get_attribute("src") for panel in picture.locator("img").all()]
    return picture.get_attribute("aria-label"), panels


def test_one_goes_on_from_lesson_to_lesson(address: str, reader: Page):
    reader.goto(f"{address}/lessons/{NAMES[0]}.html")
    for name in NAMES[1:]:
        reader.locator("a.next-page").click()
        reader.wait_for_url(f"{address}/lessons/{name}.html")
    reader.locator("a.prev-page").click()
    reader.wait_for_url(f"{address}/lessons/{NAMES[-2]}.html")


def test_folded_code_opens(address: str, reader: Page):
    reader.goto(f"{address}/lessons/01_confidence_and_ece.html")
    solution = reader.locator("details").filter(has_text="def my_bins(").first
    code = solution.get_by_text("def my_bins").first
    expect(code).to_be_hidden()
    solution.locator("summary").click()
    expect(code).to_be_visible()


def _photograph(page: Page, path: str, kind: str) -> None:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    name = Path(path).with_suffix("").as_posix().replace("/", "-")
    page.screenshot(path=ARTEFACTS / f"site-{name}-{kind}.png")
