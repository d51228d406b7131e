"""pytest as a learner, an instructor and CI call it, in a course of its own: one run, looked at.

The run is in `lessons/` and offline, over a notebook that is right, copies that are
wrong in one way each, and tests of the offline block in the process and in its children.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

# 192.0.2.1 is reserved for documentation (RFC 5737); the block comes before anything is sent.
OFFLINE_TESTS = """\
import os
import socket
import subprocess
import sys

import pytest

FAR = ("192.0.2.1", 9)


def refused():
    return pytest.raises(PermissionError, match="offline: socket")


def test_connections():
    for family, address in ((socket.AF_INET, FAR), (socket.AF_INET6, ("2001:db8::1", 9))):
        with socket.socket(family, socket.SOCK_STREAM) as end:
            with refused():
                end.connect(address)
            with refused():
                end.connect_ex(address)
            with refused():
                end.connect(("example.org", 9))


def test_datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        with refused():
            end.sendto(b"x", FAR)
        with refused():
            end.sendmsg([b"x"], [], 0, FAR)


def test_names():
    for look_up in (socket.gethostbyname, socket.gethostbyaddr, socket.gethostbyname_ex):
        with refused():
            look_up("example.org")
    with refused():
        socket.getaddrinfo(b"example.org", 9)
    with refused():
        socket.getnameinfo(FAR, 0)


def test_loopback_is_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name in ("127.0.0.1", "localhost"):
            socket.create_connection((name, port)).close()
    left, right = socket.socketpair()
    left.sendmsg([b"x"])
    left.close(), right.close()


def test_children_are_blocked_and_keep_their_own_sitecustomize():
    code = "import socket, sys; print(sys.hidden); socket.create_connection(('192.0.2.1', 9), 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "found\\n"
    assert "PermissionError: offline: socket" in done.stderr
"""


def _cells(path: Path):
    notebook = nbformat.read(path, as_version=4)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def _inherited() -> list[str]:
    return [entry for entry in [os.environ.get("PYTHONPATH")] if entry]


@pytest.fixture(scope="module")
def run(_built_once, tmp_path_factory) -> tuple[dict[str, str], Path]:
    """Outcome by test, and the folder of the course."""
    folder = tmp_path_factory.mktemp("plugin")
    root = shutil.copytree(_built_once, folder / "course")
    lesson = root / "lessons/01_tiny.ipynb"

    notebook, code = _cells(lesson)
    code[1].outputs[0].text = "cuda:0\n"  # built on a GPU, tested without
    code[2].outputs[0].data["text/plain"] = "Explorer of something"
    nbformat.write(notebook, root / "lessons/widget.ipynb")
    notebook, code = _cells(lesson)
    code[1].outputs[0].text = "cup\n"
    code[3].source = 'import socket\nsocket.socket().connect(("192.0.2.1", 9))'
    nbformat.write(notebook, root / "lessons/text.ipynb")
    (root / "lessons/test_offline.py").write_text(OFFLINE_TESTS)
    (root / "lessons/source.py").write_text("raise SystemExit('a lesson trains networks')")
    (root / "calibcourse/module.py").write_text('"""\n>>> 1 + 1\n3\n"""\n')

    (folder / "path").mkdir()
    (folder / "path/sitecustomize.py").write_text("import sys\nsys.hidden = 'found'\n")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder / "path"), *_inherited()]),
        "CALIBCOURSE_PROGRESS": str(folder / "learners.json"),
    }
    options = ["-rA", "--offline", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, ".", "../calibcourse"],
        cwd=root / "lessons",
        env=environment,
        capture_output=True,
        text=True,
    )
    found = re.findall(
        r"^(PASSED|FAILED|ERROR) (?:lessons/)?(\S+?)::(.+?)(?: - .*)?$",
        done.stdout,
        re.M,
    )
    assert found, done.stdout + done.stderr
    return {f"{name} {test}": outcome for outcome, name, test in found}, folder


def outcomes(run, name: str) -> list[str]:
    """The cells of one notebook, in order."""
    return [run[0][f"{name}.ipynb Cell {i}"] for i in range(4)]


@pytest.mark.slow  # pytest in pytest
def test_a_notebook_as_built_passes(run):
    assert outcomes(run, "01_tiny") == ["PASSED"] * 4


@pytest.mark.slow  # pytest in pytest
def test_another_device_is_no_difference_but_another_widget_is(run):
    assert outcomes(run, "widget") == ["PASSED", "PASSED", "FAILED", "PASSED"]


@pytest.mark.slow  # pytest in pytest
def test_another_text_is_a_difference_and_a_kernel_is_offline(run):
    assert outcomes(run, "text") == ["PASSED", "FAILED", "PASSED", "FAILED"]


@pytest.mark.slow  # pytest in pytest
def test_the_block_holds_in_the_process_and_its_children(run):
    tests = {name: outcome for name, outcome in run[0].items() if "test_offline" in name}
    assert len(tests) == OFFLINE_TESTS.count("def test_")
    assert set(tests.values()) == {"PASSED"}


@pytest.mark.slow  # pytest in pytest
def test_examples_of_modules_are_run_and_other_python_files_are_not(run):
    python = {name: outcome for name, outcome in run[0].items() if ".ipynb " not in name}
    others = {name: outcome for name, outcome in python.items() if "test_offline" not in name}
    assert others == {"../calibcourse/module.py module": "FAILED"}


@pytest.mark.slow  # pytest in pytest
def test_the_learners_progress_is_left_alone(run):
    assert not (run[1] / "learners.json").exists()
