"""`calibcourse release --without-solutions`: the course as a graded class gets it.

The copy has the lessons and the package. It has no `solutions/`, and the exercises' references are
not shown: their checks need them, so a learner who reads the package finds them. `grade` judges by
the instructor's own package, and refuses answers that call it.
"""

import shutil
from pathlib import Path

from .source import LESSON

CONTENT = (
    LESSON,
    "calibcourse",
    "binder",
    "README.md",
    "LICENSE",
    "CITATION.cff",
    "requirements.txt",
    "pyproject.toml",
    ".gitignore",
    ".gitattributes",
)
# Within the package; its presence keeps `solution()` shut.
MARK = Path("calibcourse/exercises/graded_class")
_LEAVE = shutil.ignore_patterns(
    "__pycache__", ".*", "my_*", "*.egg-info", "build", "dist", MARK.name
)


def release(root: Path, target: Path) -> list[str]:
    """Copy the course without its solutions to a new folder.

    Args:
        root: the folder of the course.
        target: the new folder; it must not exist, or be empty.

    Returns:
        What was copied, from `root`.

    Raises:
        ValueError: the target holds something, or lies in the course's own lessons.
        OSError: it cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} must be a new or an empty folder")
    resolved, places = target.resolve(), [(root / name).resolve() for name in CONTENT]
    if any(place == resolved or place in resolved.parents for place in places):
        raise ValueError(f"{target} lies within what is copied: choose a folder outside")
    copied = []
    for name in CONTENT:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=_LEAVE)
        elif source.exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
        else:
            continue
        copied.append(name)
    (target / MARK).parent.mkdir(parents=True, exist_ok=True)
    (target / MARK).write_text("A graded class: solutions are not shown.\n", encoding="utf-8")
    return copied
