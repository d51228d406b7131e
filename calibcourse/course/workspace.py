"""`calibcourse start` and `calibcourse update`: a learner's own copies of the lessons, in `work/`.

Git passes over `work/`, so a new version of the course never meets an answer. Beside the copies,
hidden, lies the version that each was made from: what `merge` needs to tell whose a cell is.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from .._files import write_atomically
from .build import read_notebook, write_all
from .merge import merge, touched
from .source import LANGUAGE, LESSON, SOLUTION, BuildError

WORK = "work"
BASE = ".course_version"  # within work/: what each copy was made from
BEFORE = "before_update"  # within work/: the copies as they were
_HOOK = f"{__name__}.as_built"


def start(
    root: Path, number: str = "", lab: bool = True, log: Callable[[str], None] = print
) -> int:
    """Copy the lessons to `work/`, never over a file, and open one in JupyterLab.

    Args:
        root: the folder of the course.
        number: of the lesson to open, such as "03"; "" opens the first.
        lab: whether to start JupyterLab and wait for its end.
        log: told one line per copy, and what is new in the course.

    Returns:
        Exit status.

    Raises:
        ValueError: there is no such lesson.
        OSError: a copy cannot be written.
    """
    lessons = _lessons(root)
    chosen = [path for path in lessons if number in ("", path.name[:2])]
    if not chosen:
        there = ", ".join(path.name[:2] for path in lessons) or "no lesson"
        raise ValueError(f"{LESSON}/ has no lesson {number or 'at all'}, it holds {there}")
    newer = []
    for path in lessons:
        own, base = _own(root, path), _base(root, path)
        if not own.exists():
            content = path.read_bytes()
            write_atomically(base, content)  # first: a copy without it could not be updated
            write_atomically(own, content)
            log(f"{WORK}/{own.name} is your copy")
        elif base.exists() and touched(read_notebook(base), read_notebook(path)):
            newer.append(path.name[:2])
    if newer:
        log(f"The course has newer versions of {', '.join(newer)}: `calibcourse update`")
    if not lab:
        return 0
    hook = f"--FileContentsManager.pre_save_hook={_HOOK}"
    # Beside a file to open, JupyterLab would serve that file's folder alone.
    folder = f"--ServerApp.root_dir={root}"
    command = [sys.executable, "-m", "jupyterlab", hook, folder, f"{WORK}/{chosen[0].name}"]
    # Its terminals find the command `calibcourse`, which lies beside this Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(command, cwd=root, env=os.environ | {"PATH": path}).returncode


def as_built(model: dict[str, Any], path: str, **_: Any) -> None:
    """A pre-save hook of Jupyter: a lesson opened where git keeps it is saved as it was built.

    An editor writes the kernel's version of Python into each notebook that it opens.
    """
    kept = Path(path).parts[:1] in ((LESSON,), (SOLUTION,))
    if kept and model.get("type") == "notebook" and model.get("content"):
        language = model["content"]["metadata"].get("language_info")
        if language and language.get("name") == "python":
            model["content"]["metadata"]["language_info"] = dict(LANGUAGE)


def update(root: Path, pull: bool = True, log: Callable[[str], None] = print) -> int:
    """Fetch the course's new version and bring it into the copies in `work/`.

    Args:
        root: the folder of the course.
        pull: whether to `git pull` first; without a git repository there is nothing to pull.
        log: told one line per thing that was done or is left to do.

    Returns:
        Exit status: 1 where something is left to do, which was said.

    Raises:
        OSError: a file cannot be written; no copy is half updated then.
    """
    requirements = root / "requirements.txt"
    before = requirements.read_bytes() if requirements.exists() else None
    status = 0
    if pull and (root / ".git").exists() and shutil.which("git"):
        _clear_the_way(root, log)
        done = _git(root, "pull", "--ff-only", "--quiet")
        if done.returncode:
            status = 1
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            log(f"git could not fetch a new version ({last}); the one that is here is used")
    for path in _lessons(root):
        try:
            status = max(status, _update_copy(root, path, log))
        except BuildError as problem:
            log(f"{problem}. It was left alone")
            status = 1
    if requirements.exists() and requirements.read_bytes() != before:
        log(f"Packages have changed: {sys.executable} -m pip install -r requirements.txt")
    return status


def _update_copy(root: Path, path: Path, log: Callable[[str], None]) -> int:
    own, base, name = _own(root, path), _base(root, path), f"{WORK}/{path.name}"
    if not own.exists():
        start(root, path.name[:2], lab=False, log=log)
        return 0
    if not base.exists():
        log(
            f"{name} was not made by `calibcourse start`, so its cells cannot be told from the "
            "course's: rename it, then `calibcourse start` makes a copy to take your answers to"
        )
        return 1
    theirs, ours = read_notebook(path), read_notebook(own)
    merged = merge(read_notebook(base), ours, theirs)
    texts = {own: _text(merged.notebook), base: path.read_text(encoding="utf-8")}
    if texts[own] != own.read_text(encoding="utf-8") and merged.replaced + len(merged.clashes):
        kept = _free(root / WORK / BEFORE / path.name)
        write_atomically(kept, own.read_bytes())
        log(f"{name}: {merged.replaced} new or changed cells; before: {WORK}/{BEFORE}/{kept.name}")
    for cell in merged.clashes:
        log(f"{name}: you and the course both changed {cell!r}; both versions stand there")
    write_all(texts)
    return 0


def _clear_the_way(root: Path, log: Callable[[str], None]) -> None:
    """Let `git pull` pass: lessons changed where git keeps them are restored, answers moved."""
    changed = _git(root, "diff", "--name-only", "-z", "--relative", "HEAD", "--", LESSON).stdout
    for name in filter(None, changed.split("\0")):
        path, committed = root / name, _git(root, "show", f"HEAD:./{name}").stdout
        if path.suffix != ".ipynb" or not committed:
            continue
        if path.exists() and _holds_work(path, committed):
            own = _free(_own(root, path))
            write_atomically(own, path.read_bytes())
            if own == _own(root, path):
                write_atomically(_base(root, path), committed.encode())
            log(f"{name} held your work: it is now {WORK}/{own.name}")
        _git(root, "checkout", "--quiet", "HEAD", "--", name)


def _holds_work(path: Path, committed: str) -> bool:
    try:
        return touched(nbformat.reads(committed, as_version=4), read_notebook(path))
    except BuildError:
        return True  # whatever it is, it is kept


def _lessons(root: Path) -> list[Path]:
    return sorted((root / LESSON).glob("[0-9][0-9]_*.ipynb"))


def _own(root: Path, lesson: Path) -> Path:
    return root / WORK / lesson.name


def _base(root: Path, lesson: Path) -> Path:
    return root / WORK / BASE / lesson.name


def _free(path: Path) -> Path:
    """The path itself, or the first of `name.2.ipynb`, `name.3.ipynb`, ... that is free."""
    return next(name for name in _names(path) if not name.exists())


def _names(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in count(2))


def _text(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook) + "\n"


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, encoding="utf-8")
