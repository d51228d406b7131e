"""An environment like Colab's, and a published copy of the course to install into it."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from calibcourse.course.bootstrap import parse_address
from calibcourse.course.build import kernel_environment
from calibcourse.course.publish import publish

PINNED = Path(__file__).parent / "requirements.txt"
ADDRESS = parse_address("https://github.com/ada/calibration-course", "main")
# What Colab has already for what the course imports; what these need comes along.
LENT = ("torch", "torchvision", "matplotlib", "tqdm", "filelock", "packaging")


@dataclass(frozen=True)
class Colab:
    """A virtual environment that stands for Colab's.

    Attributes:
        python: its interpreter.
        content: the notebooks' working folder.
    """

    python: Path
    content: Path

    def call(self, *arguments: str) -> str:
        """What `python ARGUMENTS` prints there."""
        command = [self.python, *arguments]
        done = subprocess.run(
            command, cwd=self.content, env=self._environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def installed(self) -> dict[str, str]:
        """Version by package name, as pip sees them."""
        listed = json.loads(self.call("-m", "pip", "list", "--format=json"))
        return {canonicalize_name(each["name"]): each["version"] for each in listed}

    def execute(self, notebook: NotebookNode) -> NotebookNode:
        """The notebook, run from the first cell to the last; the first error stops the test."""
        resources = {"metadata": {"path": str(self.content)}}
        client = NotebookClient(notebook, kernel_name="colab", timeout=300, resources=resources)
        return client.execute(env=self._environment())

    def _environment(self) -> dict[str, str]:
        # Colab has this variable; pip runs as root there, and says so at each call.
        return (
            os.environ
            | kernel_environment(self.content)
            | {"COLAB_RELEASE_TAG": "test", "PIP_ROOT_USER_ACTION": "ignore"}
        )


@pytest.fixture(scope="session")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Colab]:
    """Colab's ipywidgets and kernel of 2022, today's torch, and no calibcourse."""
    folder = tmp_path_factory.mktemp("colab")
    content, lent, venv = folder / "content", folder / "lent", folder / "venv"
    content.mkdir()
    lent.mkdir()
    _lend(lent, LENT)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    colab = Colab(venv / "bin" / "python", content)
    packages = Path(colab.call("-c", "import sysconfig; print(sysconfig.get_path('purelib'))")[:-1])
    # Outside the environment's own folder, so that no pip in it could delete what is only lent.
    (packages / "lent.pth").write_text(f"{lent}\n")
    (packages / "google" / "colab").mkdir(parents=True)
    (packages / "google" / "colab" / "__init__.py").touch()
    colab.call("-m", "pip", "install", "--quiet", "-r", str(PINNED))
    _describe_kernel(folder / "jupyter" / "kernels" / "colab", colab.python)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("PIP_CACHE_DIR", str(folder / "cache"))  # the served address is another's
        yield colab


def _lend(folder: Path, names: tuple[str, ...]) -> None:
    """Link the named packages of this environment, and all that they need, into a folder."""
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        package = metadata.distribution(name)
        tops = {file.parts[0] for file in package.files} - {"..", "__pycache__"}
        for top in tops:
            link = folder / top
            if not link.exists():
                link.symlink_to(package.locate_file(top))
        for requirement in map(Requirement, package.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)


def _describe_kernel(folder: Path, python: Path) -> None:
    # Colab has imported google.colab before the first cell runs.
    early = "--IPKernelApp.exec_lines=import google.colab"
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}", early]
    folder.mkdir(parents=True)
    described = {"argv": argv, "display_name": "Colab", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(described))


@pytest.fixture(scope="session")
def published(
    copy_course: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A published copy of the course, in a folder named as the one folder in GitHub's archives."""
    folder = tmp_path_factory.mktemp("github") / f"{ADDRESS.name}-{ADDRESS.ref}"
    publish(copy_course(folder), ADDRESS.repo, ADDRESS.ref)
    return folder


@pytest.fixture(scope="session")
def host(published: Path) -> Iterator[str]:
    """What stands for https://github.com: it serves the archive of the published course."""
    top = published.parent
    archive = top / ADDRESS.archive.removeprefix("https://github.com/").removesuffix(".zip")
    shutil.make_archive(str(archive), "zip", top, published.name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(top)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="session")
def lesson(published: Path, host: str) -> Callable[[str], NotebookNode]:
    """A function from a number to the published lesson, which finds its archive on loopback."""

    def read(number: str) -> NotebookNode:
        (path,) = (published / "lessons").glob(f"{number}_*.ipynb")
        notebook = nbformat.read(path, as_version=4)
        bootstrap = notebook.cells[1]
        assert f'PUBLISHED = "{ADDRESS.archive}"' in bootstrap.source
        bootstrap.source = bootstrap.source.replace("https://github.com", host)
        return notebook

    return read
