"""doctor: whether a host has what the other tools need."""

import json
import time
from calendar import timegm
from typing import Annotated, Any, Optional

import typer

from ..doctor.checks import FAILED, Finding, all_checks, examine
from ..doctor.probes import ThisHost
from ..errors import OK
from ..net.address import own_host_name
from ..version import NOT_BEFORE, VERSION
from .typer_support import parse, version_option

EXAMPLE = "ipclocker doctor --host lockhost"
SOMETHING_FAILED = 1  # exit code


def main(words: list[str]) -> int:
    """Run doctor; the exit code."""
    return int(parse(doctor, "ipclocker doctor", words, EXAMPLE)["code"])


def doctor(
    host: Annotated[
        Optional[str],
        typer.Option(
            help="Host of lockerd, or several with colons between; IPv6 addresses in brackets. "
            "[default: IPCLOCKER_HOST, else localhost]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        Optional[str],
        typer.Option(
            help="Port number or service name of lockerd, or the name of its UNIX socket (it has a slash). "
            "[default: IPCLOCKER_PORT, else the service lockerd, else 1751]",
            show_default=False,
        ),
    ] = None,
    pid_port: Annotated[
        Optional[str],
        typer.Option(
            help="Port number or service name of pidstatd. [default: the service pidstatd, else 1752]",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: ok, host, version, checks: of name, state, found, advice.")
    ] = False,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Check whether this host has what the other tools need, and say what to do where it has not.

    Checks Python, where modules are unpacked, the ports of the servers, whether lockerd and pidstatd answer and how
    fast, the host's own name, pidfds, clocks, the pid namespace, limits, and lockerd's state folder. Run it as the
    user who is to run the tools. It changes nothing, and takes 10 seconds at most.

    The exit code is 0 if nothing failed, 1 if a check failed, 64 if the command line is wrong.
    """
    not_before = timegm(time.strptime(NOT_BEFORE, "%Y-%m-%d"))
    findings = examine(ThisHost(host, port, pid_port), all_checks(not_before))
    failed = any(finding.state == FAILED for finding in findings)
    if as_json:
        print(json.dumps(_document(findings, not failed)))
    else:
        for finding in findings:
            print(f"{finding.state:<8} {finding.name}: {finding.found}")
            if finding.advice:
                print(f"{'':<8}   what to do: {finding.advice}")
    return {"code": SOMETHING_FAILED if failed else OK}


def _document(findings: list[Finding], good: bool) -> dict[str, Any]:
    checks = [finding._asdict() for finding in findings]
    return {"ok": good, "host": own_host_name(), "version": VERSION, "checks": checks}
