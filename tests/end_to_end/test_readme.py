"""The README against the code: its tools, options, commands, exit codes, targets and programs are there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import textwrap
from pathlib import Path
from typing import Callable

import pytest

from ipclocker.cli import TOOLS
from ipclocker.cli.tool_specs import describe
from ipclocker.docs.exit_codes import MEANINGS, exit_codes

from ..support import PROJECT
from ..support.processes import NO_PID
from ..support.site import NOBODY_UID, Site, Tool
from ..support.waiting import wait_for
from . import readme

PLUGINS = {"check-lockerd", "check-pidstatd"}
CODES = {code for row in readme.rows("code")[1:] for code in readme.codes_in(row[0])}


def test_the_table_has_all_tools_and_no_other() -> None:
    named = {tool for row in readme.rows("tool") for tool in row[0].split(", ")}
    assert set(TOOLS) <= named
    assert named - set(TOOLS) == readme.COMING


@pytest.mark.parametrize("paragraph", readme.paragraphs(), ids=lambda one: f"{one.heading}: {one.text.split()[0]}")
def test_options_exist(paragraph: readme.Paragraph) -> None:
    if paragraph.is_code:
        return  # its commands are tested one by one
    assert readme.options_in(paragraph.text) <= readme.options_of(paragraph.tools())


@pytest.mark.parametrize("command", dict.fromkeys(readme.commands()))
def test_commands_have_options_that_exist(command: str) -> None:
    assert readme.unknown_options(command) == []


def test_subcommands_exist() -> None:
    for tool in TOOLS:
        known = {line.name.split()[1] for line in describe(tool).subcommands}
        named = {word for word in re.findall(rf"`{tool} ([a-z]\w*)", readme.TEXT) if known}
        assert named <= known, tool


def test_an_option_that_is_none_would_be_found() -> None:
    assert readme.unknown_options("ipclocker lockersh --lock a --lok b true --other") == ["--lok"]
    assert readme.unknown_options("ipclocker units lockerd -- --socket") == ["--socket"]
    paragraph = readme.Paragraph("lockerd", "`--lease`")
    assert not readme.options_in(paragraph.text) <= readme.options_of(paragraph.tools())


def test_all_codes_are_there_and_no_other() -> None:
    assert set(MEANINGS) <= CODES
    assert {int(code) for tool in set(TOOLS) - PLUGINS for code, _ in exit_codes(tool) if code.isdigit()} == CODES
    for code in (1, 2):
        [row] = [row for row in readme.rows("code") if row[0] == str(code)]
        tools = {tool for tool in set(TOOLS) - PLUGINS if str(code) in dict(exit_codes(tool))}
        assert set(readme.tools_in(row[1])) == tools


def test_the_codes_of_plugins() -> None:
    assert "0, 1, 2 and 3 for ok, warning, critical and unknown" in readme.TEXT
    for tool in PLUGINS:
        assert [text.partition(":")[0] for _, text in exit_codes(tool)] == ["OK", "WARNING", "CRITICAL", "UNKNOWN"]


def _lost(site: Site) -> int:
    holder = site.start_lockersh("--on-lost", "kill", "sleep 1000", lock="lost")
    wait_for(lambda: "lost" in site.locks(), "the lock to be held")
    assert site.run("lockstat", "break", "--force", "lost").returncode == 0
    return holder.end()


def _while_held(*words: str) -> Callable[[Site], int]:
    def code(site: Site) -> int:
        holder = site.hold("held")
        try:
            return site.run(*words).returncode
        finally:
            holder.process.terminate()
            holder.end()

    return code


def _unwritable(site: Site) -> int:
    with open("/dev/full", "w") as full:
        done = site.run("lockstat", "list", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    return done.returncode


def _as_another_user(site: Site) -> int:
    if os.geteuid() != 0:
        return site.run("lockersh", "--for", "1", "--lock", "x").returncode
    site.folder.chmod(0o755)
    file = shutil.copy(site.file, site.folder / "ipclocker")  # its own folder may be closed to others
    words = [file, "lockersh", "--for", str(os.getpid()), "--lock", "x"]
    return subprocess.run(words, user=NOBODY_UID, env=site.environment, stderr=subprocess.DEVNULL).returncode


def _of(*words: str) -> Callable[[Site], int]:
    return lambda site: site.run(*words).returncode


# How each code comes about; 70 is none that can be had.
PROVOKED: dict[str, tuple[int, Callable[[Site], int]]] = {
    "the command's own": (7, _of("lockersh", "--lock", "x", "exit 7")),
    "its signal": (-signal.SIGKILL, _of("lockersh", "--lock", "x", "kill -9 $$")),
    "all is well": (0, _of("lockstat", "list")),
    "show, free": (1, _of("lockstat", "show", "free")),
    "break, free": (1, _of("lockstat", "break", "free")),
    "verify, stale": (1, _while_held("lockstat", "verify", "held", "1")),
    "host down": (2, _of("pidstat", "--host", "127.0.0.2", "--port", "1", "exists", "1")),
    "doctor": (1, _of("doctor", "--port", "/nowhere/at/all")),
    "usage": (64, _of("lockersh", "--nonsense")),
    "no server": (69, _of("lockersh", "--path", "/nowhere/at/all", "--connect-tries", "1", "--lock", "x", "true")),
    "no supervisor": (69, _of("supervise", "status", "--pid-file", "/nowhere/at/all")),
    "output": (74, _unwritable),
    "state": (74, _of("lockerd", "--nofork", "--path", "/tmp/never", "--state-dir", "/dev/null")),
    "busy": (75, _while_held("lockersh", "--lock", "held", "--timeout", "0", "true")),
    "busy, as told": (9, _while_held("lockersh", "--lock=held", "--timeout=0", "--conflict-exit-code=9", "true")),
    "lost": (76, _lost),
    "not allowed": (77, _as_another_user),
    "nothing to release": (69, _of("lockersh", "--for", str(os.getpid()), "--release", "--lock", "x")),
    "no such process": (64, _of("lockersh", "--for", str(NO_PID), "--lock", "x")),
    "fatal": (79, _of("supervise", "--nofork", "--fatal-exit", "--give-up", "1/10", "--program", "false")),
    "not executable": (126, _of("lockersh", "--lock", "x", "--no-shell", "/")),
    "not found": (127, _of("lockersh", "--lock", "x", "--no-shell", "/no/such/command")),
}


@pytest.mark.parametrize("what", PROVOKED)
def test_codes_come_about(shared_site: Site, what: str) -> None:
    code, provoke = PROVOKED[what]
    assert provoke(shared_site) == code


def test_each_code_is_provoked() -> None:
    assert {code for code, _ in PROVOKED.values()} >= CODES - {70}


def test_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make\s(\w+)", readme.TEXT, re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named - {"regress"} <= targets  # that one is the reader's


def test_variables_exist() -> None:
    sources = "".join(path.read_text() for path in (PROJECT / "ipclocker").rglob("*.py"))
    for name in set(re.findall(r"\bIPCLOCKER_\w+", readme.TEXT)):
        assert re.search(rf"\b{name}\b", sources), name


def _start_python(site: Site, code: str, folder: Path) -> Tool:
    (folder / "program.py").write_text(code)
    stderr = folder / "stderr"
    environment = {**site.environment, "PYTHONPATH": str(PROJECT)}
    with stderr.open("w") as file:
        process = subprocess.Popen(
            ["/usr/bin/python3", "-u", str(folder / "program.py")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    tool = Tool(process, stderr)
    site.watch(tool)
    return tool


def test_locker(bare_site: Site, tmp_path: Path) -> None:
    """Each function of the example does what is said beside it."""
    code = readme.code_under("In Python")[0]
    assert code.count('host="lockhost"') == 5
    bare_site.serve_tcp()
    use = """
        import sys, time
        nightly()
        with Locker("nightly", host="lockhost"):
            nightly()
        report()
        with shared, shared:
            thread = threading.Thread(target=work, args=("in a thread",))
            thread.start()
            print("held by", shared.owner() is not None)
        thread.join()
        async def fetch_all():
            await asyncio.wait_for(asyncio.gather(fetch("a"), fetch("a"), fetch("b")), 60)
        asyncio.run(fetch_all())
        child = os.fork()
        if not child:
            with shared:
                print("in a child", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print("long work", flush=True)
        long_work(time.sleep(0.1) or (lambda: None) for _ in range(1000))
    """
    program = _start_python(bare_site, (code + textwrap.dedent(use)).replace("lockhost", "127.0.0.1"), tmp_path)
    assert program.process.stdout is not None
    said = "".join(program.process.stdout.readline() for _ in range(7))
    assert re.fullmatch(
        r"holding nightly \d+\nthe lock 'nightly' is busy: \S+ holds it\nreporting\nheld by True\n"
        r"working in a thread\nin a child\nlong work\n",
        said,
    ), said + program.err
    wait_for(lambda: list(bare_site.locks()) == ["long"], "the lease")
    bare_site.free("long")
    assert program.end() == 1
    assert "LockLost" in program.err, "the end of a `with` raises it"


def test_supervisor(bare_site: Site, tmp_path: Path) -> None:
    code = readme.code_under("In Python")[1]
    assert code.count("/usr/bin/program.") == 2
    for number in (1, 2):
        program = tmp_path / f"program.{number}"
        program.write_text(f'#!/bin/sh\necho "$IPCLOCKER_PROGRAM" >{program}.runs; exec sleep 1000\n')
        program.chmod(0o755)
    running = _start_python(bare_site, code.replace("/usr/bin/program", f"{tmp_path}/program"), tmp_path)
    for number, name in ((1, "program.1"), (2, "mail")):
        note = tmp_path / f"program.{number}.runs"
        assert wait_for(lambda note=note: note.exists() and note.read_text(), "the program") == f"{name}\n"  # type: ignore[misc]
    running.process.terminate()
    assert "quitting\n" in running.out()
    assert running.end() == 0


def test_the_script(bare_site: Site, tmp_path: Path) -> None:
    """Line by line: what is held at each step, and when all is free."""
    (code,) = readme.code_under("In a script")
    assert code.count("ipclocker lockersh --for $$") == 3 and code.count("--dhost lockhost") == 2
    bare_site.serve_tcp()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ipclocker").symlink_to(bare_site.file)
    make = programs / "make"
    make.write_text(f'#!/bin/sh\necho "$$ $*"; while [ ! -e {tmp_path}/go.$3 ]; do sleep 0.02; done\n')
    make.chmod(0o755)
    path = tmp_path / "script"
    path.write_text(code.replace("lockhost", "127.0.0.1"))
    environment = {**bare_site.environment, "PATH": f"{programs}:{os.environ['PATH']}"}
    script = subprocess.Popen(["/bin/sh", path], env=environment, stdout=subprocess.PIPE, text=True)
    bare_site.watch(Tool(script, tmp_path / "none"))
    assert script.stdout is not None
    said = re.fullmatch(r"lock nightly, token (\d+)\n", script.stdout.readline())
    assert said and bare_site.run("lockstat", "verify", "nightly", said[1]).returncode == 0
    assert script.stdout.readline().endswith("-C /proj reports\n")
    assert set(bare_site.locks()) == {"nightly", "reports"}
    (tmp_path / "go.reports").touch()
    assert script.stdout.readline() == f"{script.pid} -C /proj regress\n", "the script has become that"
    assert set(bare_site.locks()) == {"nightly"}
    (tmp_path / "go.regress").touch()
    assert script.wait(60) == 0
    wait_for(lambda: not bare_site.locks(), "nightly to be free")
