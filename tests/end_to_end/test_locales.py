"""Hosts with different locales mean the same lock by the same name, and whatever a name is, it comes out as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..support import PROJECT
from ..support.locales import LOCALES, in_locale
from ..support.site import PYTHON, Site
from ..support.waiting import DEADLINE, wait_for
from .supervising import Start

# The second has what Latin-1 takes for a space, the last two are not UTF-8.
NAMES = ["prüfung-日本".encode(), "à".encode(), b"\xff", b"pr\xfcfung"]
TRY = """
import sys
from ipclocker import Locker
name = bytes.fromhex(sys.argv[1]).decode("utf-8", "surrogateescape")
locker = Locker(lock=name)
print(locker.lock(block=False) is not None)
locker.unlock()
"""
HOLD = """
import sys
from ipclocker import Locker
name = bytes.fromhex(sys.argv[1]).decode("utf-8", "surrogateescape")
locker = Locker(lock=name)
assert locker.lock()
print("held", flush=True)
sys.stdin.read()
locker.unlock()
"""


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the locales that are made."""
    return tmp_path_factory.mktemp("locales")


def ipclocker(site: Site, locales: Path, locale: str, *words: Any, by: tuple[str, ...] = ()) -> tuple[int, bytes]:
    """Run the built file in a locale: the exit code, and all that it printed."""
    program = by or (site.file,)
    done = subprocess.run(
        [*program, *words],
        env=in_locale(locale, site.environment, locales),
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEADLINE,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", NAMES)
def test_the_tools_mean_the_bytes_that_were_typed(shared_site: Site, locales: Path, locale: str, name: bytes) -> None:
    shared_site.ask(b"user us\xfc\xc3\xbc\nlocks %b\nLOCK" % name)
    try:
        code, out = ipclocker(shared_site, locales, locale, "lockersh", "--timeout=0", "--lock", name, "--", "true")
        assert code == 75 and b"lockersh: lock %b is busy: us\xfc\xc3\xbc holds it\n" % name in out
        code, out = ipclocker(shared_site, locales, locale, "lockersh", "--locklist")
        assert (code, out.split()) == (0, [name, b"us\xfc\xc3\xbc"])
        code, out = ipclocker(shared_site, locales, locale, "lockstat", "list")
        assert code == 0 and out.splitlines()[1].startswith(b"%b " % name)
        code, out = ipclocker(shared_site, locales, locale, "lockstat", "show", name)
        assert code == 0 and out.splitlines()[0].split() == [b"lock", name]
        code, out = ipclocker(shared_site, locales, locale, "lockstat", "show", "--json", name)
        assert json.loads(out)["locks"][0]["name"] == name.decode("utf-8", "backslashreplace")
    finally:
        code, out = ipclocker(shared_site, locales, locale, "lockstat", "break", name)
    assert (code, out) == (0, b"lock %b was taken from us\xfc\xc3\xbc\n" % name)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", NAMES)
def test_a_command_gets_the_name_and_the_server_its_words(
    shared_site: Site, locales: Path, locale: str, name: bytes
) -> None:
    words = ["lockersh", "--lock", name, "--", "printenv", "IPCLOCKER_LOCK"]
    assert ipclocker(shared_site, locales, locale, *words) == (0, name + b"\n")
    look = [shared_site.file, "lockstat", "show", name]
    code, out = ipclocker(
        shared_site, locales, locale, "lockersh", "--lock", name, "--", "sh", "-c", '"$@" # ü', *look[:1], *look
    )
    assert code == 0 and '"$@" # ü'.encode() in out and b"lockstat show %b" % name in out
    inner = [shared_site.file, "lockersh", "--lock", name, "--nested", "--", "echo", "within"]
    assert ipclocker(shared_site, locales, locale, "lockersh", "--lock", name, "--", *inner) == (0, b"within\n")


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", NAMES)
def test_the_library_and_the_tools_exclude_each_other(
    shared_site: Site, locales: Path, locale: str, name: bytes
) -> None:
    """Each in its own locale."""
    python = (sys.executable, "-c")
    other = "C.UTF-8"
    busy = ("lockersh", "--timeout=0", "--conflict-exit-code=9", "--lock", name, "--", "true")
    assert ipclocker(shared_site, locales, locale, TRY, name.hex(), by=python) == (0, b"True\n")
    holder = subprocess.Popen(
        [*python, HOLD, name.hex()],
        env=in_locale(locale, shared_site.environment, locales),
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        assert ipclocker(shared_site, locales, other, *busy)[0] == 9
        assert ipclocker(shared_site, locales, "POSIX", *busy)[0] == 9
        assert ipclocker(shared_site, locales, other, TRY, name.hex(), by=python) == (0, b"False\n")
    finally:
        holder.communicate(timeout=DEADLINE)
    trial = [sys.executable, "-c", TRY, name.hex()]
    held = ("lockersh", "--lock", name, "--", *trial)
    assert ipclocker(shared_site, locales, locale, *held) == (0, b"False\n")
    in_other = ["env", "-u", "LOCPATH", "LC_ALL=C.UTF-8", "PYTHONUTF8=1", *trial]
    assert ipclocker(shared_site, locales, locale, *held[:4], *in_other) == (0, b"False\n")


@pytest.mark.parametrize(
    "program", [(PYTHON, "dist/ipclocker"), (PYTHON, "-IS", "dist/ipclocker"), (sys.executable, "-m", "ipclocker")]
)
@pytest.mark.parametrize("locale", ["POSIX", "ISO-8859-1"])
def test_in_whatever_way_it_is_started(shared_site: Site, locales: Path, locale: str, program: tuple[str, ...]) -> None:
    for name in NAMES:
        words = ["--lock", name, "--verbose", "--", "sh", "-c", 'printf %s "$1:$IPCLOCKER_LOCK"', "sh", name]
        done = ipclocker(shared_site, locales, locale, "lockersh", *words, by=program)
        assert done == (0, b"%b:%b" % (name, name))
    code, out = ipclocker(shared_site, locales, locale, "pidstat", b"pr\xfcfung\xc3\xbc", by=program)
    assert code == 64 and b"'pr\xfcfung\xc3\xbc'" in out


@pytest.mark.parametrize("locale", ["POSIX", "ISO-8859-1"])
def test_a_supervisor_runs_what_its_file_says_and_waits_for_any_lock(
    bare_site: Site, supervise: Start, locales: Path, locale: str
) -> None:
    bare_site.serve()
    outputs = bare_site.folder / "ausgabe-ü"
    outputs.mkdir()
    (bare_site.folder / "list").write_bytes(b'speak: sh -c "echo \xc3\xbc\xff $IPCLOCKER_LOCK; exec sleep 1000"\n')
    environment = in_locale(locale, bare_site.environment, locales)
    name = NAMES[0].decode()
    words = ["--file", str(bare_site.folder / "list"), "--output-dir", str(outputs), "--lock", name]
    supervised = supervise(*words, env=environment)
    supervised.tool.says("keeping alive speak")
    log = outputs / "speak.log"
    wait_for(lambda: log.exists() and log.stat().st_size, "output")
    assert log.read_bytes() == b"\xc3\xbc\xff %b\n" % NAMES[0]
    ask = ("supervise", "status", "--pid-file", str(supervised.pid_file))
    code, out = ipclocker(bare_site, locales, locale, *ask)
    assert code == 0 and out.splitlines()[0].startswith(b"lock %b, token " % NAMES[0])
    code, out = ipclocker(bare_site, locales, locale, *ask, "--json")
    assert code == 0 and json.loads(out)["supervisor"]["lock"]["held"] == name


def test_a_server_remembers_and_logs_a_name_in_any_locale(bare_site: Site, locales: Path) -> None:
    environment = bare_site.environment
    bare_site.environment = in_locale("ISO-8859-1", environment, locales)
    server = bare_site.serve("--state", str(bare_site.folder / "locks.db"))
    for name in NAMES:
        bare_site.ask(b"user u%b\ntimeout 1000\nlocks %b\nLOCK" % (name, name))
    server.process.terminate()
    assert server.end() == 0
    bare_site.environment = {**environment, "LC_ALL": "C.UTF-8"}
    server = bare_site.serve("--state", str(bare_site.folder / "locks.db"))
    assert all(b"\nlock %b u%b\n" % (name, name) in b"\n" + bare_site.ask(b"LOCK_LIST") for name in NAMES)
    bare_site.ask("user u\ntimeout 1\nlocks abgelaufen-日本\nLOCK".encode())
    server.says("lock abgelaufen-日本 was taken from u")
