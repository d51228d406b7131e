"""A real JupyterLab on loopback, in a temporary home, and Debian's Chromium to look at it."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from calibcourse.course.build import kernel_environment

ROOT = Path(__file__).parents[2]
ARTEFACTS = ROOT / "artefacts" / "browser"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SECOND = 1000  # Playwright counts in milliseconds
# Every cell in the page, also those outside the window: a test must see all outputs.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab.

    Attributes:
        url: its address, on loopback.
        token: the password.
        folder: what it serves: a learner's copy of the course.
    """

    url: str
    token: str
    folder: Path

    def address(self, notebook: str, folder: str = "lessons") -> str:
        """Where a notebook is opened, in a fresh workspace."""
        return f"{self.url}/lab/tree/{folder}/{notebook}?reset&token={self.token}"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab in a learner's copy of the lessons."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "course"
    folder.mkdir()
    shutil.copytree(ROOT / "lessons", folder / "lessons")
    with serving(home, folder, ["-m", "jupyterlab"]) as lab:
        yield lab


@contextmanager
def serving(
    home: Path, folder: Path, command: Sequence[str], settings: dict[str, dict] | None = None
) -> Iterator[Lab]:
    """A JupyterLab that a Python command starts, but for its home, its folder and its port.

    Args:
        home: a temporary folder.
        folder: that it serves.
        command: after `python`.
        settings: of JupyterLab, beside `SETTINGS`.
    """
    for name, content in (SETTINGS | (settings or {})).items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    environment = (
        os.environ
        | kernel_environment(home, workers)
        | {
            "CALIBCOURSE_PROGRESS": str(home / "progress.json"),
            "HOME": str(home),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTER_TOKEN": token,
        }
    )
    config = {
        "ip": "127.0.0.1",
        "port": port,
        "port_retries": 0,
        "open_browser": False,
        "allow_root": True,
    }
    (home / "config").mkdir(exist_ok=True)
    file = home / "config/jupyter_server_config.json"
    file.write_text(json.dumps({"ServerApp": config}), encoding="utf-8")
    log = home / "jupyterlab.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            lab = Lab(f"http://127.0.0.1:{port}", token, folder)
            _wait_until_it_answers(lab, server, log)
            yield lab
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)  # what it started too
            server.wait(30)


def _wait_until_it_answers(lab: Lab, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{lab.url}/api/status?token={lab.token}", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window, that can look up no name and so reaches loopback only."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.fail("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",  # a container's root has none
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; the test fails if it asked for anything that is not on loopback."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60 * SECOND)
    asked: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    local = {"data", "blob", "about"}
    away = [u for u in asked if urlsplit(u).scheme not in local and not _on_loopback(u)]
    assert not away, f"requests left loopback: {away}"


def _on_loopback(url: str) -> bool:
    return urlsplit(url).hostname == "127.0.0.1"
