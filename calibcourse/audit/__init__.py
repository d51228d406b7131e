"""An audit of any classifier from a file of its scores: how far off, in which direction, how sure.

`calibcourse audit FILE` prints it. `formats` reads the file, `scores` makes logits of what is in it
or refuses, `measure` measures, `report` words it, `page` and `cli` show it. The file may come from
a stranger: its size, shapes and dtypes are checked, and nothing in it is executed.
"""

from .comparison import AuditComparison, compare_audits
from .formats import read_arrays
from .measure import Audit, audit
from .page import audit_figure
from .scores import KINDS, as_logits, read_logits

__all__ = [
    "KINDS",
    "Audit",
    "AuditComparison",
    "as_logits",
    "audit",
    "audit_figure",
    "compare_audits",
    "read_arrays",
    "read_logits",
]
