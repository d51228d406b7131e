"""What all unit tests share. For notebooks see calibcourse/course/pytest_plugin.py."""

import pytest
import torch
from hypothesis import settings

# A busy machine is no defect, and the same examples come again in every run.
settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine has no device for, and the browser unless `-m` names it."""
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    no_browser = pytest.mark.skip(reason="run with `pytest -m browser tests/browser`")
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if item.get_closest_marker("browser") and "browser" not in config.getoption("markexpr"):
            item.add_marker(no_browser)


@pytest.fixture(autouse=True, scope="session")
def _own_progress(tmp_path_factory: pytest.TempPathFactory):
    """The exercises' results of a test run are not the learner's."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("progress") / "progress.json"
        patch.setenv("CALIBCOURSE_PROGRESS", str(path))
        yield
