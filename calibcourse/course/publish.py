"""`calibcourse publish`: stamp the published address into all notebooks and the README, or undo it.

The address is kept in one file (`bootstrap.py`); everything else is rendered from it and from the
sources, so undoing restores every byte.
"""

import json
from pathlib import Path

from .bootstrap import ADDRESS_FILE, Address, parse_address, read_address
from .build import (
    check,
    notebook_text,
    read_notebook,
    stored_measurement,
    with_outputs,
    write_all,
)
from .source import LESSON, SOLUTION, find_sources, notebook_path, render

OPEN, CLOSE = "<!-- badges -->", "<!-- /badges -->"


def publish(root: Path, repo: str, ref: str) -> list[str]:
    """Stamp an address into every notebook's bootstrap cell and badges, and into the README.

    All files are written or none. A fork publishes to its own address; everything follows.

    Args:
        root: the folder that holds `lessons/` and `solutions/`.
        repo: `https://github.com/OWNER/NAME`, or of gitlab.com, with or without `.git`.
        ref: a branch, tag or commit.

    Returns:
        The files that changed, from `root`.

    Raises:
        ValueError: repo or ref is not an address, or a file is not in step with its source.
        OSError: a file cannot be written; nothing has changed then.
    """
    return _stamp(root, parse_address(repo, ref))


def unpublish(root: Path) -> list[str]:
    """Take the address out again, byte for byte; arguments, result and errors as in `publish`."""
    return _stamp(root, None)


def _stamp(root: Path, address: Address | None) -> list[str]:
    # What is out of step now could not be restored later.
    differences = check(root) + readme_differs(root)
    if differences:
        raise ValueError(f"nothing was stamped: {'; '.join(differences)}")
    stored = {"repo": address.repo, "ref": address.ref} if address else None
    texts = {root / ADDRESS_FILE: json.dumps(stored, indent=1) + "\n" if stored else None}
    readme = root / "README.md"
    texts[readme] = _readme(root, readme.read_text(encoding="utf-8"), address)
    for source in find_sources(root):
        for kind in (LESSON, SOLUTION):
            path = notebook_path(source, kind)
            notebook = read_notebook(path)
            stamped = render(source, kind, address, stored_measurement(notebook))
            texts[path] = notebook_text(with_outputs(stamped, notebook))
    return [str(path.relative_to(root)) for path in write_all(texts)]


def readme_differs(root: Path) -> list[str]:
    """How the README's badges differ from what the published address stands for."""
    readme = root / "README.md"
    if not readme.exists():
        return ["README.md is missing"]
    text = readme.read_text(encoding="utf-8")
    if text.count(OPEN) != 1 or text.count(CLOSE) != 1 or text.index(OPEN) > text.index(CLOSE):
        return [f"README.md must hold {OPEN} and, after it, {CLOSE}, once each"]
    if text != _readme(root, text, read_address(root)):
        return [
            f"README.md: the lines between {OPEN} and {CLOSE} must be the published address's "
            "badges (none while unpublished)"
        ]
    return []


def first_lesson(root: Path) -> str:
    """The path of the first lesson's notebook, from the root."""
    return notebook_path(find_sources(root)[0], LESSON).relative_to(root).as_posix()


def _readme(root: Path, text: str, address: Address | None) -> str:
    before, _, rest = text.partition(OPEN)
    after = rest.partition(CLOSE)[2]
    badges = ""
    if address is not None:
        badges = address.badges(first_lesson(root)) + "\n"
    return f"{before}{OPEN}\n{badges}{CLOSE}{after}"
