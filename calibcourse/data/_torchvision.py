"""Import torchvision, also where its compiled operators do not fit the installed torch.

PyPI's torchvision beside a CPU-only torch cannot load its extension, and then fails at import with
"operator torchvision::nms does not exist": it describes two operators to torch's tracing machinery
without asking whether they are there. Data sets need no operator. Declaring the two is enough.
"""

import functools
import importlib
import sys
from types import ModuleType

import torch

_SYMPTOM = "operator torchvision::nms does not exist"


def import_torchvision() -> ModuleType:
    """Import torchvision; where just its operators are absent, declare them and import it again.

    Returns:
        The module torchvision. In the second case everything but its operators works.

    Raises:
        ImportError, RuntimeError: whatever torchvision raised, unchanged, if it is anything else.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        # A failed import leaves the submodules that had succeeded; the extension is the first.
        extension = sys.modules.get("torchvision.extension")
        if not str(error).startswith(_SYMPTOM) or extension is None or extension._has_ops():
            raise
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]
    operator_schemas()
    return importlib.import_module("torchvision")


@functools.cache
def operator_schemas() -> torch.library.Library:
    """Declare the operators nms and qnms, without an implementation.

    Never call this before torchvision's own extension had its chance: defining them twice aborts
    the process. The cache keeps the library alive, and with it the declarations.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
