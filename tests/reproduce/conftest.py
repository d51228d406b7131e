"""Fixtures that the tests of reproduce share."""

import pytest
from reproduce_cases import (
    SIX,
    histories,
)

from calibcourse.reproduce import (
    run_all,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return histories(run_all(SIX, tmp_path_factory.mktemp("undisturbed"), progress=False))
