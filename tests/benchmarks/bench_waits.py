"""How often the host waits for the device: counted on the pretend one of the tests, not timed.

The counts are the same for every model and size; tests/test_device_waits.py holds them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from _harness import Setting, Table, script

sys.path.insert(0, str(Path(__file__).parents[1]))
from device_waits import WORK


def waits(setting: Setting) -> Iterator[dict]:
    for work in WORK:
        yield {"once": work.unit, "waits": work.waits(), "at most": work.most}


PARTS = (Table(name="waits", title="how often the host waits for a device", rows=waits),)

if __name__ == "__main__":
    script(__doc__, PARTS)
