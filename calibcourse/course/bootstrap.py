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

_REPO = re.compile(
    r"https://(?:(github\.com)/([A-Za-z0-9][A-Za-z0-9-]{0,38})"
    # GitLab's groups may hold groups.
    r"|(gitlab\.com)/([A-Za-z0-9_][A-Za-z0-9._-]{0,99}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,8}))"
    r"/([A-Za-z0-9._-]{1,100}?)(?:\.git)?"
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
    # Colab has what calibcourse requires. --no-deps keeps its torch, torchvision and ipywidgets.
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", PUBLISHED],
        check=True,
    )
    importlib.invalidate_caches()"""


@dataclass(frozen=True)
class Address:
    """A published state of the course: a repository and a branch, tag or commit in it.

    Attributes:
        host: "github.com" or "gitlab.com".
        owner: a user, an organisation, or a group with its groups.
        name: of the repository.
        ref: a branch, tag or commit.
    """

    host: str
    owner: str
    name: str
    ref: str

    @property
    def repo(self) -> str:
        """The repository's URL, without `.git`."""
        return f"https://{self.host}/{self.owner}/{self.name}"

    @property
    def archive(self) -> str:
        """What pip installs: a zip file, so that no git and no history are needed."""
        if self.host == "github.com":
            return f"{self.repo}/archive/{self.ref}.zip"
        file = f"{self.name}-{self.ref.replace('/', '-')}.zip"
        return f"{self.repo}/-/archive/{self.ref}/{file}"

    def badges(self, notebook: str) -> str:
        """Markdown of the badges that open a notebook: Binder, and Colab, which reads GitHub alone.

        Args:
            notebook: path from the repository's root, with forward slashes.
        """
        repo = f"{self.owner}/{self.name}"
        place = f"gh/{repo}" if self.host == "github.com" else f"gl/{quote(repo, safe='')}"
        binder = (
            f"https://mybinder.org/v2/{place}/{quote(self.ref, safe='')}"
            f"?labpath={quote(notebook, safe='')}"
        )
        badge = f"[![Launch on Binder](https://mybinder.org/badge_logo.svg)]({binder})"
        if self.host != "github.com":
            return badge
        colab = f"https://colab.research.google.com/github/{repo}/blob/{self.ref}/{quote(notebook)}"
        return (
            f"{badge} [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"({colab})"
        )

    def pull_link(self, notebook: str) -> str:
        """The end of a link with which a JupyterHub that has nbgitpuller opens a notebook.

        Args:
            notebook: as for `badges`.

        Returns:
            What follows the hub's own address.
        """
        repo, branch = quote(self.repo, safe=""), quote(self.ref, safe="")
        path = quote(f"lab/tree/{self.name}/{notebook}", safe="")
        return f"/hub/user-redirect/git-pull?repo={repo}&branch={branch}&urlpath={path}"


def parse_address(repo: str, ref: str) -> Address:
    """Check a repository URL and a reference.

    Args:
        repo: `https://github.com/OWNER/NAME`, or of gitlab.com, with or without `.git`.
        ref: a branch, tag or commit.

    Raises:
        ValueError: naming the argument and the expected form.

    Example:
        >>> parse_address("https://github.com/ada/course.git", "v1.0")
        Address(host='github.com', owner='ada', name='course', ref='v1.0')
    """
    found = _REPO.fullmatch(repo) if isinstance(repo, str) else None
    if found is None or found[5] in {".", ".."}:
        raise ValueError(
            "repo must be https://github.com/OWNER/NAME[.git], or the same of gitlab.com, "
            f"got {short_repr(repo)}"
        )
    if not (isinstance(ref, str) and _REF.fullmatch(ref)):
        raise ValueError(f"ref must name a branch, a tag or a commit, got {short_repr(ref)}")
    return Address(found[1] or found[3], found[2] or found[4], found[5], ref)


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
    return _CELL.format(archive=address.archive if address else "")
