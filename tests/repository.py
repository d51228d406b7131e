"""A course in a git repository, and a learner's clone of it."""

import subprocess
from pathlib import Path

WHO = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *words: str) -> str:
    """What a git command prints, by nobody in particular."""
    done = subprocess.run(["git", *WHO, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def published(folder: Path) -> Path:
    """Make a course's folder a repository with one commit."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "The course")
    return folder


def cloned(origin: Path, folder: Path) -> Path:
    """A learner's clone, beneath a folder."""
    git(folder, "clone", "--quiet", str(origin), "learner")
    return folder / "learner"
