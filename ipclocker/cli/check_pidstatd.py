"""check-pidstatd: whether a pid server answers, as a monitoring plugin."""

from __future__ import annotations

from math import ceil

from ..pid.client import PidStat
from .command_line import number, option
from .monitoring_plugin import Plugin
from .shared_options import pidstatd_port


class CheckPidstatd(Plugin, name="check-pidstatd", example="check-pidstatd -H host1 -w 0.1 -c 1"):
    """Say whether a pid server answers that a process exists, and how fast, in one line with performance data.

    Exit codes: 0 it does, 1 it is slow, 2 it does not or is too slow, 3 the check could not be done.
    """

    host: str = option("Host of pidstatd.", "-H", "--host", default="localhost")
    port: str | None = pidstatd_port(names=("-p", "--port"))
    pid: int = number("INTEGER RANGE", "Process that has to exist there.", default=1, lowest=1)

    def run(self) -> int:
        """Ask the server; the exit code."""
        with PidStat(self.host, self.port, tries=ceil(self.timeout)) as stat:  # of a second each
            ping = stat.ping_status(pid=self.pid)
        return self.report(ping["ok"], ping["status"])


COMMAND_LINES = (CheckPidstatd,)
