"""The host waits for the device no more often than it must: upper bounds that hold."""

import pytest
from device_waits import WORK


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.unit)
def test_the_host_waits_no_more_often(work):
    assert work.waits() <= work.most
