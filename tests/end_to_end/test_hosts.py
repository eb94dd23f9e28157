"""The proof: the one file, copied to a Debian that holds nothing but python3, works there for everyone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ipclocker.cli import TOOLS

from .hosts import SUITES, Host, host

POISONED = {
    "HOME": "/mnt/poison",
    "PYTHONPATH": "/mnt/poison",
    "PYTHONHOME": "/mnt/poison",
    "PYTHONUSERBASE": "/mnt/poison",
    "PYTHONSTARTUP": "/mnt/poison/typer.py",
    "PYTHONWARNINGS": "error",
    "VIRTUAL_ENV": "/mnt/poison",
    "TMPDIR": "/mnt/poison",
    "SHIV_ROOT": "/mnt/poison",
    "SHIV_ENTRY_POINT": "os:abort",
}
CALLERS: dict[str, tuple[str, dict[str, str]]] = {
    "root": ("root", {"HOME": "/root"}),
    "nobody": ("nobody", {"HOME": "/nonexistent"}),
    "nobody without HOME": ("nobody", {}),
    "nobody with a poisoned environment": ("nobody", POISONED),
    "root with a poisoned environment": ("root", POISONED),
}

# The server is the script's child, so that its end can be waited for; `until` polls, the test's time-out bounds it.
ROUND_TRIP = """
ipclocker lockerd --nofork --path /tmp/lockerd --state-dir /tmp/state-$(id -u) 2>/tmp/log & server=$!
until [ -S /tmp/lockerd ]; do kill -0 $server; sleep 0.02; done
ipclocker lockersh --path /tmp/lockerd --lock x \\
    'ipclocker lockersh --path /tmp/lockerd --locklist; exit 7' || echo "code $?"
ipclocker lockersh --path /tmp/lockerd --lock x --timeout 0 --no-shell echo free
kill $server; wait $server
[ ! -e /tmp/lockerd ]
"""


@pytest.fixture(scope="module", params=SUITES)
def debian(request: pytest.FixtureRequest, built_file: Path) -> Host:
    return host(request.param, built_file)


def test_it_is_the_python_that_it_should_be(debian: Host) -> None:
    major, minor = SUITES[debian.root.name]
    assert debian.run("python3 --version").out.startswith(f"Python {major}.{minor}.")
    assert debian.run("python3 -Ic 'import typer'").code == 1


@pytest.mark.parametrize("caller", CALLERS)
class TestEveryone:
    def test_runs_every_tool(self, debian: Host, caller: str) -> None:
        user, environment = CALLERS[caller]
        script = "".join(f"ipclocker {tool} --version; ipclocker {tool} --help >/tmp/{tool}\n" for tool in TOOLS)
        script += f"grep -c -- --version {' '.join(f'/tmp/{tool}' for tool in TOOLS)}"
        done = debian.run(script, user=user, environment=environment)
        assert (done.code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert all(re.fullmatch(r"Version: \d+\.\d+\.\d+", line) for line in lines[: len(TOOLS)])
        assert len(lines) == 2 * len(TOOLS)

    def test_locks(self, debian: Host, caller: str) -> None:
        user, environment = CALLERS[caller]
        done = debian.run(ROUND_TRIP, user=user, environment=environment)
        assert done.code == 0, done
        held, code, free = done.out.splitlines()
        assert re.fullmatch(r"x +\S+", held)
        assert (code, free) == ("code 7", "free")


@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize(
    "trouble",
    [
        "mount -t tmpfs -o size=32k,mode=1777 tmpfs",
        "mount -t tmpfs -o ro,mode=1777 tmpfs",
        "mount -t tmpfs -o mode=000 tmpfs",
    ],
    ids=["a full disk", "a read-only disk", "no place at all"],
)
def test_runs_without_a_place_to_keep_anything(debian: Host, trouble: str, user: str) -> None:
    script = "".join(f"{trouble} {place}\n" for place in ("/var/cache", "/var/tmp", "/tmp", "/run"))
    script += f"chroot --userspec={user} / ipclocker lockersh --version\n" * 2
    script += "find /var/cache /var/tmp /tmp /run -name 'new-*'"
    done = debian.run(script)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"(Version: \d+\.\d+\.\d+\n){2}", done.out), "nothing is left half written"


def test_a_running_daemon_needs_neither_the_file_nor_the_cache(debian: Host) -> None:
    script = """
    cp /usr/local/bin/ipclocker /mnt/copy
    ipclocker lockerd --nofork --path /tmp/lockerd & server=$!
    until [ -S /tmp/lockerd ]; do kill -0 $server; sleep 0.02; done
    rm -rf /var/cache/ipclocker-0
    : > /usr/local/bin/ipclocker
    /mnt/copy lockersh --path /tmp/lockerd --lock x "rm -rf /var/cache/ipclocker-0 /mnt/copy; echo done"
    kill $server; wait $server
    """
    done = debian.run(script)
    assert (done.code, done.out) == (0, "done\n"), done


def test_each_user_has_a_place(debian: Host) -> None:
    script = """
    ipclocker lockersh --version; chroot --userspec=nobody:nogroup / ipclocker lockersh --version
    stat -c '%U %a %n' /var/cache/ipclocker-* /var/tmp/ipclocker-*
    """
    assert debian.run(script).out.splitlines()[2:] == [
        "root 700 /var/cache/ipclocker-0",
        "nobody 700 /var/tmp/ipclocker-65534",
    ]
