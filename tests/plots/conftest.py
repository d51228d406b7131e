"""Fixtures that the tests of plots share."""

import matplotlib.pyplot as plt
import pytest
from IPython.core.interactiveshell import InteractiveShell


@pytest.fixture(autouse=True)
def _close_figures():
    plt.close("all")  # those of files elsewhere
    yield
    plt.close("all")


@pytest.fixture
def published(monkeypatch):
    """What `display` publishes to a notebook."""
    shown = []

    class Shell:
        class display_pub:
            publish = staticmethod(lambda **what: shown.append(what))

    monkeypatch.setattr(InteractiveShell, "initialized", classmethod(lambda cls: True))
    monkeypatch.setattr(InteractiveShell, "instance", classmethod(lambda cls: Shell))
    return shown
