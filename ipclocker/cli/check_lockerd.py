"""check-lockerd: whether a lock server answers, as a monitoring plugin."""

from __future__ import annotations

import time

from .. import Locker
from ..lock.client.connection import wait_until
from .monitoring_plugin import PATIENCE, Plugin
from .shared_options import lockerd_host, lockerd_port


class CheckLockerd(Plugin, name="check-lockerd", example="check-lockerd -H lockhost -w 0.1 -c 1"):
    """Say whether a lock server answers, and how fast, in one line with performance data.

    Exit codes: 0 it does, 1 it is slow, 2 it does not or is too slow, 3 the check could not be done.
    """

    host: str | None = lockerd_host("Host of lockerd.", "-H", "--host")
    port: str | None = lockerd_port(names=("-p", "--port"))

    def run(self) -> int:
        """Ask the server; the exit code."""
        wait = wait_until(time.monotonic() + PATIENCE)
        ping = Locker(wait=wait, host=self.host, port=self.port, connect_tries=1).ping_status()
        return self.report(ping["ok"], ping["status"])


COMMAND_LINES = (CheckLockerd,)
