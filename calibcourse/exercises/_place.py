"""Where a session runs, and what its learner should know of where results are kept."""

import os
import sys
from pathlib import Path

FUNCTIONS = "from calibcourse.exercises import export_progress, import_progress"
_said = False


def host() -> str | None:
    """Which one's machine this is, "Colab" or "Binder", thrown away after a session; else None."""
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return "Colab"
    if {"BINDER_LAUNCH_HOST", "BINDER_SERVICE_HOST"} & set(os.environ):
        return "Binder"
    return None


def word(path: Path, in_course: bool) -> str | None:
    """One line on a progress file where one would not expect it, once in a session; else None.

    Args:
        path: of the progress file.
        in_course: whether it is the course's own.
    """
    global _said
    where = host()
    if _said or os.environ.get("CALIBCOURSE_PROGRESS") or (in_course and not where):
        return None
    _said = True
    if where:
        return (
            f"On {where} your results vanish with the session. Run `{FUNCTIONS}`: "
            "`export_progress()` saves them to a file to take along, `import_progress()` brings it "
            "back."
        )
    return (
        f"This runs outside the folder of the course, so results are kept apart, in {path}. "
        f"To keep them elsewhere set CALIBCOURSE_PROGRESS to a file."
    )
