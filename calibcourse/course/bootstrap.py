"""Where the course is published, and what that puts into notebooks: the bootstrap cell and badges.

The address lives in one small file, `published.json` in this folder: `{"repo": ..., "ref": ...}`.
While the file is absent the course is unpublished: no badges, no links that lead nowhere.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short_repr
from urllib.parse import quote

from .._files import read_json

ADDRESS_FILE = Path("calibcourse/course/published.json")
FROM_PYPI = "pytorch-optimizer"  # the one requirement of calibcourse that Colab lacks

_REPO = re.compile(
    r"https://github\.com/([A-Za-z0-9](?:[A-Za-z0-9-]{0,38}))/([A-Za-z0-9._-]{1,100}?)(?:\.git)?"
)
# Git's own rule for reference names, narrowed to what survives in every URL that we make of one.
_REF = re.compile(r"(?!.*(?:\.\.|//|/\.|\.lock(?:/|$)))[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}(?<![./])")

_CELL = """\
# Finds calibcourse: installs it on Colab, says what to run elsewhere. The same in every lesson.
import importlib.util
import subprocess
import sys

PUBLISHED = "{archive}"

if importlib.util.find_spec("calibcourse") is None:
    if "google.colab" not in sys.modules:
        raise ModuleNotFoundError(
            "calibcourse is not installed for this kernel. In a terminal, in the folder that "
            f'holds requirements.txt, run\\n\\n    "{{sys.executable}}" -m pip install '
            "-r requirements.txt\\n\\nthen restart the kernel."
        )
    if not PUBLISHED:
        raise ModuleNotFoundError(
            "This copy of the course has no published address to install calibcourse from. "
            "Open the lesson from the repository that publishes it, or run it in JupyterLab."
        )
    # --no-deps keeps Colab's own torch, torchvision and ipywidgets.
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        + [PUBLISHED, "{from_pypi}"],
        check=True,
    )
    importlib.invalidate_caches()"""


@dataclass(frozen=True)
class Address:
    """A published state of the course: a GitHub repository and a branch, tag or commit in it."""

    owner: str
    name: str
    ref: str

    @property
    def repo(self) -> str:
        """The repository's URL, without `.git`."""
        return f"https://github.com/{self.owner}/{self.name}"

    @property
    def archive(self) -> str:
        """What pip installs: a zip file, so that no git and no history are needed."""
        return f"{self.repo}/archive/{self.ref}.zip"

    def badges(self, notebook: str) -> str:
        """Markdown of the Binder and Colab badges that open a notebook.

        Args:
            notebook: path from the repository's root, with forward slashes.
        """
        binder = (
            f"https://mybinder.org/v2/gh/{self.owner}/{self.name}/{quote(self.ref, safe='')}"
            f"?labpath={quote(notebook, safe='')}"
        )
        colab = (
            f"https://colab.research.google.com/github/{self.owner}/{self.name}"
            f"/blob/{self.ref}/{quote(notebook)}"
        )
        return (
            f"[![Launch on Binder](https://mybinder.org/badge_logo.svg)]({binder}) "
            "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"({colab})"
        )


def parse_address(repo: str, ref: str) -> Address:
    """Check a repository URL and a reference.

    Args:
        repo: `https://github.com/OWNER/NAME`, with or without `.git`.
        ref: a branch, tag or commit.

    Raises:
        ValueError: naming the argument and the expected form.

    Example:
        >>> parse_address("https://github.com/ada/course.git", "v1.0")
        Address(owner='ada', name='course', ref='v1.0')
    """
    found = _REPO.fullmatch(repo) if isinstance(repo, str) else None
    if found is None or found[2] in {".", ".."}:
        raise ValueError(
            f"repo must be https://github.com/OWNER/NAME[.git], got {short_repr(repo)}"
        )
    if not (isinstance(ref, str) and _REF.fullmatch(ref)):
        raise ValueError(f"ref must name a branch, a tag or a commit, got {short_repr(ref)}")
    return Address(found[1], found[2], ref)


def read_address(root: Path) -> Address | None:
    """The address under which the course in folder `root` is published; None if it is not.

    Raises:
        ValueError: the file is not what `calibcourse publish` writes; it is named.
        OSError: it is no regular file, or cannot be opened.
    """
    try:
        stored = read_json(root / ADDRESS_FILE, max_bytes=10_000)
    except FileNotFoundError:
        return None
    if not (isinstance(stored, dict) and stored.keys() == {"repo", "ref"}):
        raise ValueError(f"{ADDRESS_FILE} must hold repo and ref, got {short_repr(stored)}")
    try:
        return parse_address(**stored)
    except ValueError as error:
        raise ValueError(f"{ADDRESS_FILE}: {error}") from error


def bootstrap_cell(address: Address | None) -> str:
    """Source of the cell that finds or installs `calibcourse`; prints nothing when it is there."""
    return _CELL.format(archive=address.archive if address else "", from_pypi=FROM_PYPI)
