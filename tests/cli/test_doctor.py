"""doctor's command line: what it prints, and its exit codes."""

from __future__ import annotations

import json
import re
import subprocess

from ..support.processes import run_ipclocker
from ..support.servers import ThreadServer, pid_server, port_of


def doctor(*words: str) -> subprocess.CompletedProcess[str]:
    return run_ipclocker("doctor", *words)


def test_a_line_for_each_check_and_one_for_what_to_do() -> None:
    with ThreadServer() as server, pid_server() as pids:
        where = ["--host", "127.0.0.1", "--port", str(server.port), "--pid-port", str(port_of(pids))]
        done = doctor(*where)
        document = json.loads(doctor(*where, "--json").stdout)
    assert done.stderr == ""
    assert f"second response on 127.0.0.1:{server.port}\n" in done.stdout
    assert re.search(rf"^ok       port {server.port}: lockerd has it: process \d+ ", done.stdout, re.MULTILINE)
    lines = done.stdout.splitlines()
    checks = [line for line in lines if re.match(r"(ok|warning|failed) +\S.*: \S", line)]
    advice = [line for line in lines if re.match(r" +what to do: \S", line)]
    assert len(checks) + len(advice) == len(lines)
    assert len(advice) == sum(not line.startswith("ok") for line in checks)
    assert [check["name"] for check in document["checks"]] == [line[9:].split(": ")[0] for line in checks]
    assert done.returncode == (1 if any(line.startswith("failed") for line in checks) else 0)


def test_what_means_nothing() -> None:
    for words in (["--host", "[a"], ["--port", "none-such"], ["--pid-port", "70000"], ["word"]):
        done = doctor(*words)
        assert (done.returncode, done.stdout) == (64, "")
        assert re.fullmatch(r"(ipclocker )?doctor: .*\n", done.stderr), done.stderr
