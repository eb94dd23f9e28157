"""What the tests of this folder share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ...support.keepalive import end_background
from ...support.servers import ThreadServer


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as running:
        yield running


@pytest.fixture
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPCLOCKER_HOST", "IPCLOCKER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_automatic_collection() -> Iterator[None]:
    """What is garbage is collected in the thread that the test wants."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def no_thread() -> Iterator[None]:
    """Before a test and after it there is no task of another in the background."""
    end_background()
    yield
    end_background()
