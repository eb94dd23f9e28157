"""Looking up addresses in a thread: what one look-up has found is not what the next one finds."""

from __future__ import annotations

import threading
import time

import pytest

from ipclocker.net import look_up
from ipclocker.net.address import Address

from ..support.waiting import DEADLINE, wait_for


class LateEvent(threading.Event):
    """Is set only after somebody has looked whether it is."""

    looked = False

    def is_set(self) -> bool:
        try:
            return super().is_set()
        finally:
            self.looked = True

    def set(self) -> None:
        until = time.monotonic() + 1
        while not self.looked and time.monotonic() < until:
            time.sleep(0.001)
        super().set()


def test_each_look_up_looks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the thread of the one before ended just when that was noted."""
    asked: list[int] = []

    def find() -> list[Address]:
        asked.append(1)
        return []

    class Threading:
        Event = LateEvent
        Thread = threading.Thread
        TIMEOUT_MAX = threading.TIMEOUT_MAX

    monkeypatch.setattr(look_up, "threading", Threading)
    for count in (1, 2):
        look_up.find_by(time.monotonic() + DEADLINE, "host", "key", find)
        wait_for(lambda: all(thread.name != "ipclocker look-up" for thread in threading.enumerate()))
        assert len(asked) == count
