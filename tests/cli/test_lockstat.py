"""lockstat as a process: lines, JSON, exit codes, options."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

from ..support import PROJECT
from ..support.fake_servers import NOTHING, VERSION_REPLY, ClassicServer, FakeTcpServer, ScriptedServer
from ..support.servers import ThreadServer

COMMANDS = ["list", "show", "break", "verify", "ping"]
X = b"held x user u_x token 7 age 63.5 host h pid 12 address 10.0.0.1 lease 30 left 20.5 command sleep%2060\n"
W = b"waiter x user u_w age 2 host k pid 13\n"
A = b"held a user u_a token 6 age 3\n"
ODD = b"held o\xff\x1b[2J user u\\ token 8 age 1 hold nan new word\n"
GONE = [(b"LOCK_INFO", NOTHING), (b"RECALL", b"owner \nlocked 0\n\n\n"), (b"BREAK_LOCK", b"owner \nlocked 0\n\n\n")]


def lockstat(server: FakeTcpServer | ThreadServer | None, *words: str, **more: Any) -> tuple[int, bytes, str]:
    """The exit code, stdout, and stderr."""
    where = [] if server is None else ["--host", "127.0.0.1", "--port", str(server.port)]
    done = subprocess.run(
        [sys.executable, "-m", "ipclocker", "lockstat", *words, *where],
        cwd=PROJECT,
        timeout=60,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )
    return done.returncode, done.stdout, done.stderr.decode(errors="backslashreplace")


def parsed(result: tuple[int, bytes, str]) -> tuple[int, Any]:
    """The exit code, and what stdout has as JSON, in one line of ASCII."""
    code, out, err = result
    assert err == "" and out.isascii() and out.count(b"\n") == 1
    return code, json.loads(out)


def fails(result: tuple[int, bytes, str], code: int, *texts: str) -> None:
    """It says so in one line on stderr."""
    assert result[:2] == (code, b"")
    assert re.fullmatch(r"lockstat( \w+)?: .*\n", result[2]) and all(text in result[2] for text in texts), result[2]


def test_list() -> None:
    with ScriptedServer({b"LOCK_INFO": X + W + A + ODD + NOTHING}) as server:
        code, out, err = lockstat(server, "list")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert [line.split()[0] for line in lines] == [b"NAME", b"a", b"o\xff\x1b[2J", b"x"]
        assert lines[3].split()[1:4] == [b"u_x", b"h", b"12"]
        assert lines[3].split()[5:] == [b"lease", b"30", b"7", b"1"]
        code, found = parsed(lockstat(server, "list", "--json"))
    assert code == 0 and found["server"] == f"127.0.0.1:{server.port}"
    a, odd, x = found["locks"]
    assert (x["name"], x["holder"], x["token"], x["lease"], x["command"]) == ("x", "u_x", 7, 30, "sleep 60")
    assert [waiter["user"] for waiter in x["waiters"]] == ["u_w"]
    assert x["since"] == pytest.approx(found["time"] - 63.5)
    assert (odd["name"], odd["holder"]) == ("o\\xff\x1b[2J", "u\\x5c")
    assert (a["pid"], a["waiters"]) == (None, [])


def test_list_of_none() -> None:
    with ScriptedServer({b"LOCK_INFO": NOTHING}) as server:
        assert lockstat(server, "list") == (0, b"no lock is held on 127.0.0.1:%d\n" % server.port, "")
        assert parsed(lockstat(server, "list", "--json"))[1]["locks"] == []


def test_list_on_a_terminal() -> None:
    """There no name moves the cursor."""
    with ScriptedServer({b"LOCK_INFO": ODD + NOTHING}) as server:
        master, slave = pty.openpty()
        assert lockstat(server, "list", stdout=slave)[0] == 0
        shown = os.read(master, 65_536)
        os.close(master)
        os.close(slave)
    assert b"o\xff\\x1b[2J" in shown and b"\x1b" not in shown


def test_ten_thousand_locks() -> None:
    lines = b"".join(b"held n%05d user %b token %d age 1\n" % (n, b"u" * 60, n + 1) for n in range(10_000))
    with ScriptedServer({b"LOCK_INFO": lines + NOTHING}) as server:
        assert lockstat(server, "list")[1].count(b"\n") == 10_001
        assert len(parsed(lockstat(server, "list", "--json"))[1]["locks"]) == 10_000
        assert lockstat(server, "list", stdout=open_broken_pipe())[0] == 141


def open_broken_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_show() -> None:
    with ScriptedServer({b"LOCK_INFO x": X + W + NOTHING, b"LOCK_INFO y": NOTHING}) as server:
        code, out, err = lockstat(server, "show", "x")
        assert (code, err) == (0, "")
        assert b"holder   u_x\n" in out and b"command  sleep 60\n" in out and b"   1. u_w, waits for 2.0 s" in out
        code, found = parsed(lockstat(server, "show", "--json", "x"))
        assert (code, found["locks"][0]["holder"]) == (0, "u_x")
        assert lockstat(server, "show", "y") == (1, b"lock y is free\n", "")
        code, found = parsed(lockstat(server, "show", "y", "--json"))
        assert (code, found["locks"]) == (1, [])


def test_break() -> None:
    answers = {b"RECALL": b"print_broke u_x\nowner u_w\nlocked 0\n\n\n"}
    with ScriptedServer(answers) as server:
        assert lockstat(server, "break", "x") == (0, b"lock x was taken from u_x\n", "")
        code, found = parsed(lockstat(server, "break", "x", "y", "x", "--json"))
        assert code == 0
        assert found["locks"] == [{"name": name, "outcome": "broken", "holder": "u_x"} for name in ("x", "y")]
        server.answers.update(GONE)
        assert lockstat(server, "break", "x") == (1, b"lock x is free: there was nobody to take it from\n", "")
        assert b"BREAK_LOCK" not in server.asked


def test_break_by_force() -> None:
    with ScriptedServer({b"BREAK_LOCK": b"print_broke u_x\nowner \nlocked 0\n\n\n"}) as server:
        assert lockstat(server, "break", "x", "--force") == (0, b"lock x was taken from u_x\n", "")
        assert b"RECALL" not in server.asked and b"locks x" in server.asked


def test_break_of_a_lease_that_is_not_given_back() -> None:
    recalled = X[:-1] + b" recalled 1\n" + NOTHING
    answers = {b"RECALL": b"print_recalled u_x\nowner u_x\nlocked 0\n\n\n", b"LOCK_INFO": recalled}
    with ScriptedServer(answers) as server:
        code, out, err = lockstat(server, "break", "x", "--timeout", "0.5")
        assert (code, out) == (75, b"")
        told, failed = err.splitlines()
        assert told.startswith("lockstat: lock x: u_x was told to end what it runs")
        assert failed.startswith("lockstat: lock x is still held by u_x after ") and "--force" in failed
        code, out, err = lockstat(server, "break", "x", "--timeout", "0", "--json")
        assert (code, json.loads(out)["locks"]) == (75, [{"name": "x", "outcome": "held", "holder": "u_x"}])
        assert len(err.splitlines()) == 2


def test_verify() -> None:
    with ScriptedServer({b"CHECK x 7": b"current 1\n\n\n", b"CHECK": b"current 0\n\n\n"}) as server:
        assert lockstat(server, "verify", "x", "7") == (0, b"token 7 of lock x is current\n", "")
        assert lockstat(server, "verify", "x", "8") == (1, b"token 8 of lock x is stale\n", "")
        code, found = parsed(lockstat(server, "verify", "--json", "x", "7"))
        assert (code, found) == (
            0,
            {"server": f"127.0.0.1:{server.port}", "name": "x", "token": 7, "current": True},
        )
        for word in ("", "7.5", "seven", "+7", "7 ", "\u0667", "1" * 21):
            fails(lockstat(server, "verify", "x", word), 64, "token", "no number")


def test_ping() -> None:
    with ScriptedServer({}) as server:
        code, out, err = lockstat(server, "ping")
        assert (code, err) == (0, "")
        pattern = rb"127\.0\.0\.1:\d+ answered in \d\.\d{3} s: version 9\.5, running since 2023-11-1\d \d\d:\d\d:\d\d\n"
        assert re.fullmatch(pattern, out), out
        code, found = parsed(lockstat(server, "ping", "--json"))
        assert code == 0 and set(found) == {"server", "seconds", "version", "started", "age", "hosts"}
        assert [host["state"] for host in found["hosts"]] == ["serves"]
        assert (found["version"], found["started"]) == ("9.5", 1700000000.0)


def test_a_classic_server() -> None:
    with ClassicServer() as server:
        server.holders = {"x": "u_x", "a": "u_a"}
        lines = lockstat(server, "list")[1].splitlines()
        assert [line.split() for line in lines[1:]] == [[b"a", b"u_a", *[b"-"] * 6], [b"x", b"u_x", *[b"-"] * 6]]
        held = parsed(lockstat(server, "show", "x", "--json"))[1]["locks"][0]
        assert {key: value for key, value in held.items() if value is not None} == {"name": "x", "holder": "u_x"}
        assert lockstat(server, "show", "x")[1].startswith(b"lock     x\nholder   u_x\n")
        assert lockstat(server, "show", "y")[0] == 1
        fails(lockstat(server, "verify", "x", "7"), 69, "knows no tokens")
        assert lockstat(server, "ping")[0] == 0
        assert lockstat(server, "break", "x", "y")[:2] == (
            1,
            b"lock x was taken from u_x\nlock y is free: there was nobody to take it from\n",
        )
        assert server.holders == {"a": "u_a"}


def test_a_server_that_refuses() -> None:
    with ScriptedServer({b"LOCK_INFO": b"error so\xff_so\n\n\n"}) as server:
        fails(lockstat(server, "list"), 70, "refused", "so")


def test_a_server_that_cannot_write_its_state() -> None:
    with ScriptedServer({b"RECALL": b"error unwritable\n\n\n"}) as server:
        fails(lockstat(server, "break", "x"), 69, f"127.0.0.1:{server.port}", "can't write its state")


@pytest.mark.parametrize("words", [["list"], ["show", "x"], ["break", "x"], ["verify", "x", "7"], ["ping"]])
def test_no_server(words: list[str]) -> None:
    fails(lockstat(None, *words, "--dhost", "127.0.0.1", "--port", "1", "--json"), 69, "127.0.0.1:1")


@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        ["lists"],
        ["--json", "list"],
        ["list", "x"],
        ["list", "--nonsense"],
        ["show"],
        ["show", "x", "y"],
        ["show", "a b"],
        ["list", "--dhost", "lockhost:1751"],
        ["show", ""],
        ["break"],
        ["break", "x", "a b"],
        ["break", "x", "--timeout", "soon"],
        ["verify", "x"],
        ["verify", "x", "7", "8"],
        ["verify", "x", "-7"],
        ["ping", "x"],
        ["ping", "--port", "nosuch"],
    ],
)
def test_wrong_command_lines(words: list[str]) -> None:
    result = lockstat(None, *words)
    fails(result, 64)
    if not words or words[0] not in COMMANDS:
        assert all(command in result[2] for command in COMMANDS)


def test_nothing_is_done_if_a_name_is_none() -> None:
    with ScriptedServer({b"RECALL": b"print_broke u_x\nowner \nlocked 0\n\n\n"}) as server:
        fails(lockstat(server, "break", "x", "a b"), 64, "a b")
        assert b"RECALL" not in server.asked


def test_a_name_that_is_longer_than_one_may_ask_for_now_can_be_broken() -> None:
    """Servers of before let such be taken."""
    name = "n" * 2000
    with ScriptedServer({b"RECALL": b"print_broke u_x\nowner \nlocked 0\n\n\n"}) as server:
        code, _, err = lockstat(server, "break", name)
        assert (code, err) == (0, "") and b"locks " + name.encode() in server.asked


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)])
def test_help_and_version(words: list[str]) -> None:
    code, out, err = lockstat(None, *words, "--help")
    assert (code, err) == (0, "")
    assert b"--dhost" in out and b"--json" in out and b"Example: lockstat " in out and b"Version: " in out
    assert max(map(len, out.splitlines())) <= 100
    assert lockstat(None, *words, "--version")[:2] == (0, re.findall(rb" *(Version: \S+\n)", out)[-1])


def test_the_help_names_all_keys_of_json() -> None:
    _, out, _ = lockstat(None, "--help")
    documented = set(re.findall(r"\w+", out.decode().partition("JSON")[2]))
    with ScriptedServer({b"LOCK_INFO": X + W + NOTHING, b"RECALL": b"print_broke u\nowner \n\n\n"}) as server:
        for words in (["list"], ["show", "x"], ["break", "x"], ["ping"]):
            assert keys(parsed(lockstat(server, *words, "--json"))[1]) <= documented


def keys(found: Any) -> set[str]:
    if isinstance(found, list):
        return {key for value in found for key in keys(value)}
    if isinstance(found, dict):
        return set(found) | keys(list(found.values()))
    return set()


def test_debug() -> None:
    with ScriptedServer({}) as server:
        code, _, trace = lockstat(server, "ping", "--debug")
    assert code == 0
    assert "lockstat: > VERSION\n" in trace and f"lockstat: < {VERSION_REPLY.decode().strip()}\n" in trace


def test_path_and_environment(tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    with ThreadServer(path=path):
        assert lockstat(None, "ping", "--path", path)[1].startswith(path.encode())
        assert lockstat(None, "ping", "--port", path)[0] == 0
        assert lockstat(None, "ping", env={**os.environ, "IPCLOCKER_PORT": path})[0] == 0
