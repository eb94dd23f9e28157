"""doctor: whether a host has what the other tools need."""

from __future__ import annotations

import json
from typing import Any

from ..doctor.checks import CHECKS, FAILED, Finding, examine
from ..doctor.probes import ThisHost
from ..errors import OK
from ..net.address import own_host_name
from ..version import VERSION
from .command_line import flag
from .etcd_options import EtcdOptions
from .shared_options import lockerd_host, lockerd_port, pidstatd_port

SOMETHING_FAILED = 1  # exit code


class Doctor(EtcdOptions, name="ipclocker doctor", example="ipclocker doctor --host lockhost"):
    """Check whether this host has what the other tools need, and say what to do where it has not.

    Checks Python, where modules are unpacked, the ports of the servers, whether lockerd and pidstatd answer and how
    fast, the host's own name, pidfds, clocks, the pid namespace, limits, and lockerd's state folder; with --etcd, that
    etcd, where it writes a key of its own and deletes it. Run it as the user who is to run the tools. It changes
    nothing else, and takes 10 seconds at most.

    The exit code is 0 if nothing failed, 1 if a check failed, 64 if the command line is wrong.
    """

    host: str | None = lockerd_host(
        "Host of lockerd, or several with colons between; IPv6 addresses in brackets. [HOST]:PORT is that port of a "
        "host."
    )
    port: str | None = lockerd_port()
    pid_port: str | None = pidstatd_port("Port number or service name of pidstatd.")
    as_json: bool = flag("Print JSON: ok, host, version, checks: of name, state, found, advice.", "--json")

    def run(self) -> int:
        """Do all checks; the exit code."""
        findings = examine(ThisHost(self.host, self.port, self.pid_port, self.etcd_settings()), CHECKS)
        failed = any(finding.state == FAILED for finding in findings)
        if self.as_json:
            print(json.dumps(_document(findings, not failed)))
        else:
            for finding in findings:
                print(f"{finding.state:<8} {finding.name}: {finding.found}")
                if finding.advice:
                    print(f"{'':<8}   what to do: {finding.advice}")
        return SOMETHING_FAILED if failed else OK


def _document(findings: list[Finding], good: bool) -> dict[str, Any]:
    checks = [finding._asdict() for finding in findings]
    return {"ok": good, "host": own_host_name(), "version": VERSION, "checks": checks}


COMMAND_LINES = (Doctor,)
