"""Three audited networks of lesson 09: logits of 2,500 Fashion-MNIST test images, and their labels.

`case_a`, `case_b` and `case_c` are files as anybody might send them. `python -m calibcourse.cases
FOLDER` makes them anew (`make`); `record.json` beside them says how they were made, when and with
what, and what the same recipes gave with other seeds.
"""

import json
from pathlib import Path
from typing import Any

from .._checks import check_choice

CASES = ("case_a", "case_b", "case_c")
_FOLDER = Path(__file__).parent


def case_file(name: str) -> Path:
    """Where a case's file lies: `logits` (2500, 10) float16 and `target` (2500,) uint8.

    Args:
        name: one of CASES. All three hold the same images in the same order, the first half of the
            test part of "fashion_mnist_small".

    Raises:
        ValueError: unknown name.

    Example:
        >>> from calibcourse.audit import read_logits
        >>> logits, target = read_logits(case_file("case_a"))
        >>> logits.shape, target.shape
        (torch.Size([2500, 10]), torch.Size([2500]))
    """
    check_choice(name, "name", CASES)
    return _FOLDER / f"{name}.npz"


def record() -> dict[str, Any]:
    """How the files were made: command, versions, and for each case its recipe and other seeds.

    Example:
        >>> sorted(record()["cases"]) == list(CASES)
        True
    """
    return json.loads((_FOLDER / "record.json").read_text(encoding="utf-8"))
