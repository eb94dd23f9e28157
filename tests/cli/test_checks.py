"""The monitoring plugins: one line, performance data, and their exit codes."""

from __future__ import annotations

import re
import threading

import pytest

from ipclocker.cli.check_pidstatd import CheckPidstatd
from ipclocker.cli.monitoring_plugin import threshold
from ipclocker.pid.client import PidStat

from ..support.processes import NO_PID, run_ipclocker
from ..support.servers import ThreadServer, pid_server, port_of
from ..support.waiting import DEADLINE


def check(*words: str) -> tuple[int, str]:
    """The exit code, and the line."""
    done = run_ipclocker(*words)
    return done.returncode, done.stdout.rstrip("\n")


def test_check_lockerd() -> None:
    with ThreadServer() as server:
        where = ["-H", "127.0.0.1", "-p", str(server.port)]
        code, line = check("check-lockerd", *where, "-w", "20", "-c", "30.5")
        at = rf"127\.0\.0\.1:{server.port}"
        assert code == 0
        assert re.fullmatch(rf"LOCKERD OK - (\d+\.\d{{3}}) second response on {at} \| time=\1s;20;30.5", line)
        assert check("check-lockerd", *where)[1].endswith("s;;")
        code, line = check("check-lockerd", *where, "-c", "0")
        assert code in (0, 2) and line.startswith(("LOCKERD OK - 0.000", "LOCKERD CRITICAL - 0."))


def test_check_lockerd_without_a_server() -> None:
    code, line = check("check-lockerd", "-H", "127.0.0.1", "-p", "1")
    assert code == 2 and line.startswith("LOCKERD CRITICAL - ") and "\n" not in line


def test_check_pidstatd() -> None:
    with pid_server() as server:
        where = ["-H", "127.0.0.1", "-p", str(port_of(server))]
        code, line = check("check-pidstatd", *where, "-w", "20", "-c", "30")
        assert code == 0
        assert re.fullmatch(r"PIDSTATD OK - (\d+\.\d{3}) second response on \S+ \| time=\1s;20;30", line)
        code, line = check("check-pidstatd", *where, "--pid", str(NO_PID))
        assert code == 2 and line.startswith(f"PIDSTATD CRITICAL - process {NO_PID} does not exist")


def test_check_pidstatd_asks_the_server_of_this_host_too() -> None:
    code, line = check("check-pidstatd", "-p", "1")
    assert (code, line) == (2, "PIDSTATD CRITICAL - No response from pidstatd on localhost:1")


@pytest.mark.parametrize("tool", ["check-lockerd", "check-pidstatd"])
@pytest.mark.parametrize("words", [["-w", "x"], ["--nonsense"], ["-p", "nosuch"], ["-p", "70000"], ["-c", "-1"]])
def test_trouble(tool: str, words: list[str]) -> None:
    done = run_ipclocker(tool, *words)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (3, "", 1)
    assert done.stdout.startswith(f"{tool[6:].upper()} UNKNOWN - ") and words[-1] in done.stdout


@pytest.mark.parametrize("tool", ["check-lockerd", "check-pidstatd"])
def test_help(tool: str) -> None:
    code, text = check(tool, "--help")
    assert code == 0 and "--critical" in text


@pytest.mark.parametrize(("taken", "code"), [(0.5, 0), (1.0, 0), (1.5, 1), (2.0, 1), (2.5, 2)])
def test_thresholds(taken: float, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = CheckPidstatd.read(["-w", "1", "-c", "2"])
    assert plugin.report(True, f"{taken:.3f} second response on h:1") == code
    assert capsys.readouterr().out.split()[1] == ["OK", "WARNING", "CRITICAL"][code]


@pytest.mark.parametrize(
    ("text", "alerts", "fine"),
    [
        ("10", [-0.1, 10.1], [0, 10]),
        ("10:", [9.9], [10, 1e9]),
        ("~:10", [10.1], [-1e9, 10]),
        ("10:20", [9, 21], [10, 20]),
        ("@10:20", [10, 20], [9, 21]),
        ("@5", [0, 5], [5.1]),
    ],
)
def test_ranges_of_the_guidelines(text: str, alerts: list[float], fine: list[float]) -> None:
    limit = threshold(text)
    assert all(map(limit.alerts, alerts)) and not any(map(limit.alerts, fine)) and limit.text == text


@pytest.mark.parametrize("text", ["", ":", "20:10", "x", "1:x", "@", "nan", "1:nan", "inf", "~", "-5", "1:2:3"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match="is no range: write 2"):
        threshold(text)


@pytest.mark.parametrize("tool", ["check-lockerd", "check-pidstatd"])
def test_short_options(tool: str) -> None:
    assert check(tool, "-V")[0] == 0 and "--critical" in check(tool, "-h")[1]
    code, line = check(tool, "-t", "0")
    assert code == 3 and "UNKNOWN" in line


def test_a_check_waits_as_long_as_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pid_server() as server:
        words = ["check-pidstatd", "-H", "127.0.0.1", "-p", str(port_of(server)), "-t", "0.5", "-w", "@0:20"]
        assert check(*words)[0] == 1


def test_a_check_ends_in_time_though_the_name_is_not_looked_up_in_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    never = threading.Event()
    monkeypatch.setattr(PidStat, "ping_status", lambda stat, pid: never.wait(DEADLINE))
    plugin = CheckPidstatd.read(["-H", "slowhost", "-t", "0.2"])
    assert plugin.run() == 2
    assert capsys.readouterr().out == "PIDSTATD CRITICAL - no answer from slowhost within 0.2 s\n"
    never.set()
