"""check-lockerd: whether a lock server answers, as a monitoring plugin."""

from __future__ import annotations

from ..errors import ServerUnavailable
from ..lock.client.ping import ping_hosts, serving
from ..lock.client.settings import LockSettings
from .monitoring_plugin import Plugin
from .shared_options import lockerd_host, lockerd_port


class CheckLockerd(Plugin, name="check-lockerd", example="check-lockerd -H lockhost -w 0.1 -c 1"):
    """Say whether a lock server answers, and how fast, in one line with performance data.

    Of several hosts it is enough that one serves; the line says what the others do: stand by, or nothing.

    Exit codes: 0 it does, 1 it is slow, 2 it does not or is too slow, 3 the check could not be done.
    """

    host: str | None = lockerd_host("Host of lockerd, or several with colons between.", "-H", "--host")
    port: str | None = lockerd_port(names=("-p", "--port"))

    def run(self) -> int:
        """Ask the servers; the exit code."""
        hosts = ping_hosts(LockSettings(host=self.host, port=self.port, connect_tries=1), self.timeout)
        try:
            first = serving(hosts)
        except ServerUnavailable as problem:
            return self.report(False, str(problem))
        assert first.ping is not None
        others = [f"{host.server} {host.state}" for host in hosts if host is not first]
        beside = f" ({', '.join(others)})" if others else ""
        return self.report(True, f"{first.ping.seconds:.3f} second response on {first.server}{beside}")


COMMAND_LINES = (CheckLockerd,)
