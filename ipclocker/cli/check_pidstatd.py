"""check-pidstatd: whether a pid server answers, as a monitoring plugin."""

from __future__ import annotations

from math import ceil

from ..doctor.at_once import at_once
from ..errors import IpclockerError
from ..pid.client import PidPing, PidStat
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
        # In a thread, since the look-up of a host name may take longer. One second is for it, each other one for a try.
        answer = at_once({"ping": self._ping}, self.timeout).get("ping")
        if answer is None:
            return self.report(False, f"no answer from {self.host} within {self.timeout:g} s")
        if isinstance(answer, IpclockerError):
            raise answer
        return self.report(answer["ok"], answer["status"])

    def _ping(self) -> PidPing | IpclockerError:
        try:
            with PidStat(self.host, self.port, tries=max(1, ceil(self.timeout) - 1)) as stat:
                return stat.ping_status(pid=self.pid)
        except IpclockerError as error:
            return error


COMMAND_LINES = (CheckPidstatd,)
