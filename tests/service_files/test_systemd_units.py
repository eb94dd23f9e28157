"""The text of units: what systemd's own tools say of it, and which command lines there can be no unit for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ipclocker.cli import TOOLS
from ipclocker.errors import UsageError
from ipclocker.service_files.own_command import own_command
from ipclocker.service_files.quoting import command_line, setting
from ipclocker.service_files.systemd_sockets import lockerd_sockets, pidstatd_sockets, prefork_sockets
from ipclocker.service_files.systemd_units import DAEMONS, hides
from ipclocker.version import VERSION

from ..support.processes import run_ipclocker
from ..support.site import PYTHON, Run

EXPOSURE = 2.0  # of 10, where 0 is the least; what confined daemons stay below
PRESENT = [tool for tool in DAEMONS if tool in TOOLS]
CONFINED = [tool for tool in PRESENT if "DynamicUser" in DAEMONS[tool].confinement]
WITH_SOCKETS = [tool for tool in PRESENT if DAEMONS[tool].sockets is not None]
# Options that a tool can't do without.
NEEDED = {"supervise": ["--program", "true"], "prefork": ["--listen", "unix:/run/x", "--", "true"]}

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this host has no systemd-analyze")


def units(run: Run, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [run.file, "units", *words], env=run.environment(), capture_output=True, text=True, errors="surrogateescape"
    )


def unit(run: Run, *words: str) -> str:
    """What is printed."""
    done = units(run, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(run: Run, *words: str) -> str:
    """The one line that is said instead."""
    done = units(run, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (64, "", 1), done
    assert done.stderr.startswith(("units: ", "ipclocker units: ", *(f"{word}: " for word in words[:1])))
    return done.stderr


def line(text: str, name: str) -> str:
    """The value of a setting."""
    found = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
    assert found is not None, text
    return found[1]


def installed(run: Run, folder: Path, tool: str, *options: str) -> list[Path]:
    """The units of a tool, as files that are called as they have to be."""
    paths = [folder / f"{tool}.service"]
    paths[0].write_text(unit(run, tool, *options))
    if tool in WITH_SOCKETS:
        paths.append(folder / f"{tool}.socket")
        paths[1].write_text(unit(run, tool, "--socket", *options))
    return paths


# What systemd says


@needs_systemd
@pytest.mark.parametrize("tool", PRESENT)
@pytest.mark.parametrize("options", [[], ["--host", "::1", "--port", "99", "--log-file", "/a b%d$HOME"]], ids=str)
def test_systemd_finds_nothing_wrong(run: Run, tmp_path: Path, tool: str, options: list[str]) -> None:
    if tool in NEEDED:
        options = NEEDED[tool]
    paths = installed(run, tmp_path, tool, "--", *options)
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("tool", CONFINED)
def test_a_confined_daemon_is_little_exposed(run: Run, tmp_path: Path, tool: str) -> None:
    path, *_ = installed(run, tmp_path, tool)
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(rf"Overall exposure level for {tool}.service: ([\d.]+)", done.stdout)
    if found is None:
        pytest.skip(f"this systemd-analyze rates no files: {done.stderr}")
    assert float(found[1]) < EXPOSURE, done.stdout


def test_all_that_hides_processes_is_absent(run: Run) -> None:
    for tool in CONFINED:
        assert not re.search(r"^(ProtectProc|ProcSubset|PrivatePIDs|PrivateNetwork)=", unit(run, tool), re.MULTILINE)


# lockerd with etcd

ETCD = ["--", "--host", "0.0.0.0", "--etcd", "http://db1:2379,http://db2:2379"]
FILES = ["--etcd-cacert", "/etc/etcd/ca.crt", "--etcd-cert", "/etc/etcd/a%.crt", "--etcd-key", "/etc/etcd/a.key"]


def test_a_lockerd_that_waits_for_etcd(run: Run) -> None:
    text = unit(run, "lockerd", *ETCD)
    assert line(text, "TimeoutStartSec") == "infinity"
    assert line(text, "After").split() == ["network-online.target", "nss-lookup.target", "etcd.service"]
    assert line(text, "ExecStart").endswith(" lockerd --nofork --host 0.0.0.0 --etcd http://db1:2379,http://db2:2379")
    assert line(text, "StateDirectory") == "ipclocker", "for its note of how far etcd had come"
    assert "SupplementaryGroups" not in text
    without = unit(run, "lockerd")
    assert "TimeoutStartSec" not in without and "etcd" not in without


def test_files_that_it_has_to_read(run: Run) -> None:
    text = unit(run, "lockerd", *ETCD, *FILES)
    assert "has to be able to read /etc/etcd/ca.crt /etc/etcd/a%%.crt /etc/etcd/a.key;" in text
    assert "\n#SupplementaryGroups=etcd\n" in text
    done = units(run, "lockerd", *ETCD, "--etcd-user", "u", "--etcd-password-file", "/root/password")
    assert done.returncode == 0
    assert "units: the service will not see /root/password: have it below /etc\n" in done.stderr


@needs_systemd
def test_systemd_finds_nothing_wrong_with_etcd(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "lockerd.service"
    path.write_text(unit(run, "lockerd", *ETCD, *FILES))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--socket", "lockerd", *ETCD], "no socket unit"),
        (["lockerd", *ETCD, "--import", "x.db"], "--import is for once"),
        (["lockerd", *ETCD, "--accept-restored"], "--accept-restored is for once"),
        (["lockerd", *ETCD, "--etcd-cacert", "ca.crt"], "whole name of 'ca.crt'"),
    ],
)
def test_what_there_is_no_unit_with_etcd_for(run: Run, words: list[str], said: str) -> None:
    assert said in refusal(run, *words)


# What starts it


@pytest.mark.parametrize("tool", PRESENT)
def test_the_service_is_this_file_in_the_foreground(run: Run, tool: str) -> None:
    text = unit(run, tool, "--", *NEEDED.get(tool, []))
    words = [str(run.file), tool, *DAEMONS[tool].foreground, *NEEDED.get(tool, [])]
    assert line(text, "ExecStart") == " ".join(words)
    assert line(text, "Type") == "notify"
    assert f"# Made by ipclocker {VERSION}." in text


def test_options_are_taken_over(run: Run) -> None:
    text = unit(run, "lockerd", "--", "--host", "0.0.0.0", "--state-dir", "/srv/a b/100%/$x")
    assert line(text, "ExecStart").endswith(' --nofork --host 0.0.0.0 --state-dir "/srv/a b/100%%/$$x"')
    assert "ipclocker units lockerd -- --host 0.0.0.0 --state-dir '/srv/a b/100%/$x' >" in text, "how it was made"


def test_names_that_are_no_characters(run: Run) -> None:
    assert line(unit(run, "lockerd", "--", "--state-dir", "/x\udcff"), "ExecStart").endswith(' "/x\\xff"')
    assert "--state-dir '/x\udcff' " in unit(run, "lockerd", "--sysv", "--", "--state-dir", "/x\udcff")


def test_a_link_named_after_the_file_stays_one(run: Run, tmp_path: Path) -> None:
    for name in ("ipclocker", "lockerd", "units"):
        (tmp_path / name).symlink_to(run.file)
    link = Run(tmp_path / "ipclocker", run.cache)
    assert line(unit(link, "lockerd"), "ExecStart") == f"{tmp_path}/ipclocker lockerd --nofork"
    done = subprocess.run([tmp_path / "units", "lockerd"], env=run.environment(), capture_output=True, text=True)
    assert line(done.stdout, "ExecStart") == f"{run.file} lockerd --nofork"
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["ipclocker", "units", "lockerd"], env=run.environment(PATH=path), capture_output=True, text=True
    )
    assert line(done.stdout, "ExecStart") == f"{tmp_path}/ipclocker lockerd --nofork"
    relative = [run.file.name, "units", "lockerd"]
    done = subprocess.run(["/usr/bin/python3", *relative], cwd=run.file.parent, capture_output=True, text=True)
    assert line(done.stdout, "ExecStart") == f"{run.file} lockerd --nofork"


def test_a_file_that_is_called_as_a_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "lockerd"
    path.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setattr(sys, "executable", PYTHON)
    assert own_command("lockerd", TOOLS) == [str(path)]
    with pytest.raises(UsageError, match="nothing that runs pidstatd"):
        own_command("pidstatd", TOOLS)


def test_another_interpreter_stays_the_one(run: Run) -> None:
    """The usual one may be too old here; which this one is, is for its caller to say."""
    if os.path.realpath(PYTHON) == os.path.realpath(sys.executable):
        pytest.skip("this is the usual one")
    for command in ([sys.executable, str(run.file)], [PYTHON, str(run.file)]):
        done = subprocess.run([*command, "units", "lockerd"], env=run.environment(), capture_output=True, text=True)
        words = line(done.stdout, "ExecStart").split()
        assert words[-3:] == [str(run.file), "lockerd", "--nofork"]
        assert [os.path.realpath(word) for word in words[:-3]] == (
            [] if command[0] == PYTHON else [os.path.realpath(sys.executable)]
        )


def test_modules_are_no_file_to_start(run: Run) -> None:
    done = run_ipclocker("units", "lockerd")
    assert (done.returncode, done.stdout) == (64, "")
    assert "__main__.py is nothing that runs lockerd: build the one file" in done.stderr


def test_a_file_that_a_service_does_not_see(run: Run, tmp_path: Path) -> None:
    for path in ("/home/me/ipclocker", "/root/ipclocker", "/tmp/ipclocker", "/var/tmp/ipclocker"):
        assert hides("lockerd", path)
    assert not hides("lockerd", "/usr/local/bin/ipclocker") and not hides("lockerd", "/srv/tmp/ipclocker")
    assert not hides("supervise", "/home/me/ipclocker")
    link = tmp_path / "ipclocker"
    link.symlink_to("/home/me/ipclocker")
    assert hides("lockerd", str(link))
    done = units(run, "lockerd")
    assert done.stderr.count("\n") == hides("lockerd", str(run.file))


@pytest.mark.parametrize(
    "name", ['/opt/"x"/ipclocker', "/opt/it's/ipclocker", "/opt/a\\b/ipclocker", "/opt/a\tb/ipclocker"]
)
def test_a_file_that_systemd_does_not_start(name: str) -> None:
    with pytest.raises(UsageError, match="systemd does not start a program that is called"):
        command_line([name, "lockerd"], [])


# What there is no unit for


def test_daemons_that_are_none(run: Run) -> None:
    for tool in ("lockersh", "units", "nonsense", "", "--"):
        assert "lockerd, pidstatd" in refusal(run, tool)
    assert "lockerd, pidstatd" in refusal(run)
    assert "choose one of them" in refusal(run, "lockerd", "--socket", "--sysv")


@pytest.mark.parametrize("kind", [[], ["--socket"], ["--sysv"]], ids=str)
def test_options_that_the_daemon_does_not_know(run: Run, kind: list[str]) -> None:
    assert "No such option: --prot" in refusal(run, "lockerd", *kind, "--", "--prot", "5")
    assert "unexpected extra argument" in refusal(run, "lockerd", *kind, "--", "word")
    assert "No such option: --host" in refusal(run, "lockerd", *kind, "--host", "x")


# Sockets


def sockets(text: str) -> list[str]:
    return re.findall(r"^Listen\w+=(.*)$", text, re.MULTILINE)


def test_the_sockets_are_those_of_the_options(run: Run) -> None:
    assert sockets(unit(run, "lockerd", "--socket")) == ["127.0.0.1:1751", "[::1]:1751"]
    assert sockets(unit(run, "pidstatd", "--socket")) == ["1752"]
    text = unit(run, "--socket", "lockerd", "--", "--host", "0.0.0.0", "--host", "[::]", "--port", "99")
    assert sockets(text) == ["0.0.0.0:99", "[::]:99"] and line(text, "BindIPv6Only") == "ipv6-only"
    text = unit(run, "pidstatd", "--socket", "--", "--host", "10.0.0.1", "--port", "99")
    assert sockets(text) == ["10.0.0.1:99"] and "ListenDatagram" in text
    for tool, option in (("lockerd", "--path"), ("lockerd", "--port"), ("pidstatd", "--port")):
        assert sockets(unit(run, tool, "--socket", "--", option, "/run/x 100%/y")) == ["/run/x 100%%/y"]


def test_a_socket_in_a_folder_that_goes_with_the_service(run: Run) -> None:
    for folder in ("/run", "/var/run"):
        assert "name another for its socket" in refusal(
            run, "lockerd", "--socket", "--", "--path", f"{folder}/lockerd/x"
        )
    assert sockets(unit(run, "lockerd", "--socket", "--", "--path", "/run/lockerd.sock")) == ["/run/lockerd.sock"]
    assert "RuntimeDirectory=lockerd\n" in unit(run, "lockerd", "--", "--path", "/run/lockerd/x")


def test_the_caller_s_own_port_is_not_the_daemon_s(run: Run) -> None:
    environment = run.environment(IPCLOCKER_PORT="/run/other")
    done = subprocess.run([run.file, "units", "lockerd", "--socket"], env=environment, capture_output=True, text=True)
    assert sockets(done.stdout) == ["127.0.0.1:1751", "[::1]:1751"]


LOCKERD = {"port": None, "path": None, "host": None}
PREFORK = {"listen": None, "socket_mode": None, "socket_owner": None, "backlog": 99}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"host": ["lockhost"]}, "'lockhost' is none: write the host's address"),
        ({"port": "0"}, "port 0 is any that is free"),
        ({"port": "word"}, "the port 'word' is neither"),
        ({"path": "relative"}, "the socket's name 'relative' is none from the root"),
        ({"path": "/a\nb"}, "can't be written into a unit"),
        ({"path": "/a\\"}, "can't be written into a unit"),
    ],
)
def test_sockets_that_systemd_can_t_open(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        lockerd_sockets({**LOCKERD, **changes})
    if "path" in changes:
        changes = {
            "port": "./" + str(changes["path"]).lstrip("/") if changes["path"] == "relative" else changes["path"]
        }
        problem = problem.replace("'relative'", "'./relative'")
    with pytest.raises(UsageError, match=re.escape(problem)):
        pidstatd_sockets({**LOCKERD, **changes})


def test_the_socket_of_fastcgi_programs() -> None:
    assert prefork_sockets({**PREFORK, "listen": "[::1]:9000"}) == ["ListenStream=[::1]:9000", "Backlog=99"]
    assert prefork_sockets({**PREFORK, "listen": "127.0.0.1:9000"})[0] == "ListenStream=127.0.0.1:9000"
    assert prefork_sockets({**PREFORK, "listen": "unix:/run/x"})[:2] == ["ListenStream=/run/x", "SocketMode=0660"]
    lines = prefork_sockets({**PREFORK, "listen": "unix:/run/x", "socket_mode": "600", "socket_owner": "www:web"})
    assert lines[1:4] == ["SocketMode=600", "SocketUser=www", "SocketGroup=web"]
    for listen in (None, "fd:3", "unix:", "9000", "host:port", "unix:relative"):
        with pytest.raises(UsageError):
            prefork_sockets({**PREFORK, "listen": listen})


def test_settings_that_are_one_text() -> None:
    assert setting("/a b/100%") == "/a b/100%%"
    for value in ("a\nb", " a", "a ", "a\\", "\udcff"):
        with pytest.raises(UsageError):
            setting(value)
