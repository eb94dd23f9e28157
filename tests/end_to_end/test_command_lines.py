"""Options and messages of the tools, as a user sees them."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker.cli import TOOLS
from ipclocker.version import VERSION

from ..support.site import Site
from ..support.waiting import wait_for
from .terminal import Terminal

# All that the manuals of the first lockersh and lockerd document, and what has come since.
OPTIONS = {
    "lockersh": "lock dhost port path timeout hold-timeout no-shell locklist conflict-exit-code connect-tries "
    "connect-delay release-tries verbose debug version help",
    "lockerd": "port path host nofork pid-file log-file state state-dir debug version help",
}


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    yield shared_site
    shared_site.end_tools()
    wait_for(lambda: not shared_site.locks(), "all locks to be free")


@pytest.mark.parametrize("tool", OPTIONS)
class TestEachTool:
    def test_help(self, site: Site, tool: str) -> None:
        done = site.run(tool, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert set(re.findall(r"--([a-z][a-z-]+)", done.stdout)) >= set(OPTIONS[tool].split())
        assert re.search(rf"^ *(Example: )?{tool} --\w+", done.stdout, re.MULTILINE), "an example"
        assert f"Version: {VERSION}" in done.stdout
        assert "IPCLOCKER_PORT" in done.stdout

    def test_version(self, site: Site, tool: str) -> None:
        done = site.run(tool, "--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"Version: {VERSION}\n", "")

    def test_called_by_a_link(self, site: Site, tool: str, tmp_path: Path) -> None:
        link = tmp_path / tool
        link.symlink_to(site.file)
        for command in (str(link), tool):
            path = f"{tmp_path}:{os.environ['PATH']}"
            environment = {**site.environment, "PATH": path}
            done = subprocess.run([command, "--version"], env=environment, capture_output=True, text=True, timeout=30)
            assert done.stdout == f"Version: {VERSION}\n"
            done = subprocess.run([command, "--nonsense"], env=environment, capture_output=True, text=True, timeout=30)
            assert (done.returncode, done.stderr.startswith(f"{tool}: ")) == (64, True)

    @pytest.mark.parametrize("output", ["/dev/full", "|"])
    @pytest.mark.parametrize("option", ["--help", "--version"])
    def test_output_that_goes_nowhere(self, site: Site, tool: str, option: str, output: str) -> None:
        expect_output_error(site, output, tool, option)

    def test_words_that_mean_nothing(self, site: Site, tool: str) -> None:
        for words in (["--nonsense"], ["-x"], ["--port"], ["--port", "no-such-service", "x"], ["--port", "65536", "x"]):
            lock = ["--lock", "x"] if tool == "lockersh" else []
            check_usage_error(site.run(tool, *lock, *words), tool)


def expect_output_error(site: Site, output: str, *words: str) -> None:
    if output == "|":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(output, os.O_WRONLY)
    done = site.run(*words, stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    os.close(writer)
    if output == "|":
        assert (done.returncode, done.stderr) == (141, "")
    else:
        assert (done.returncode, done.stderr) == (74, f"{words[0]}: No space left on device\n")


def check_usage_error(done: subprocess.CompletedProcess[str], tool: str) -> None:
    assert done.returncode == 64, done
    assert re.fullmatch(rf"{tool}: .+\n", done.stderr), done.stderr
    assert done.stdout == ""


def test_which_tool(site: Site) -> None:
    for words in ([], ["nonsense"], ["--nonsense"], [""], ["lockersh "], ["-x"]):
        done = site.run(*words)
        check_usage_error(done, "ipclocker")
        assert all(tool in done.stderr for tool in TOOLS)
    assert all(tool in site.run(word).stdout for tool in TOOLS for word in ("-h", "--help"))
    assert site.run("--version").stdout == f"Version: {VERSION}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--lock", "x"],
        ["--lock", "x", ""],
        ["true"],
        ["--lock", "", "true"],
        ["--lock", "a:", "true"],
        ["--lock", ":", "true"],
        ["--lock", "two words", "true"],
        ["--lock", "x", "--timeout", "soon", "true"],
        ["--lock", "x", "--timeout", "-1", "true"],
        ["--lock", "x", "--timeout", "nan", "true"],
        ["--lock", "x", "--timeout", "inf", "true"],
        ["--lock", "x", "--hold-timeout", "-1", "true"],
        ["--lock", "x", "--connect-tries", "0", "true"],
        ["--lock", "x", "--connect-tries", "many", "true"],
        ["--lock", "x", "--connect-delay", "-1", "true"],
        ["--lock", "x", "--release-tries", "", "true"],
        ["--lock", "x", "--conflict-exit-code", "256", "true"],
        ["--lock", "x", "--conflict-exit-code", "-1", "true"],
        ["--lock", "x", "--port", "", "--dhost", "a::b", "true"],
        ["--lock", "x", "--port", "5", "--dhost", "[::1", "true"],
        ["--lock", "x", "--dhost", "127.0.0.1:1751", "true"],
        ["--lock", "n" * 1025, "true"],
        ["--lock", "x", "--hold-timeout", "999999999999.9999", "true"],
        ["--lock", "x", "--path", "", "true"],
        ["--lock", "x", "--path", "/" + "x" * 200, "true"],
        ["--lock", "x", "-lock", "y", "true"],
        ["--lock", "x", "--timeou", "1", "true"],
        ["--lock", ":".join(["x"] * 300), "true"],
        ["--lock", "x", "--help=yes", "true"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_usage_errors_of_lockersh(site: Site, words: list[str]) -> None:
    check_usage_error(site.run("lockersh", *words), "lockersh")


@pytest.mark.parametrize(
    "words",
    [
        ["word"],
        ["--state", "disk"],
        ["--path", ""],
        ["--path", "x" * 200],
        ["--host", "", "--host", "a b"],
        ["--path", "/nowhere/at/all"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_errors_of_lockerd(site: Site, words: list[str]) -> None:
    done = site.run("lockerd", "--nofork", *words)
    assert done.returncode in (64, 69), done
    assert re.fullmatch(r"lockerd: .+\n", done.stderr), done.stderr


def test_any_words(site: Site) -> None:
    """Never a traceback, never more than a line."""
    dice = random.Random(5)
    options = [
        f"--{name}"
        for name in OPTIONS["lockersh"].split()
        if name not in ("lock", "help", "version", "locklist", "verbose", "debug")
    ]
    values = [
        "",
        "0",
        "-1",
        "x",
        "\udcff",
        "é",
        "1e3",
        "1" * 400,
        "a:b",
        "[",
        "--",
        "-",
        "%s",
        "\n",
        "/",
        "/dev/null",
        "=",
        "\u2028",
    ]
    for _ in range(40):
        words = [dice.choice(options) + dice.choice(["", "=" + dice.choice(values)]) for _ in range(dice.randrange(4))]
        done = site.run(
            "lockersh", "--lock", "y", "--connect-tries=1", "--timeout=0", *words, dice.choice(values) or "true"
        )
        assert "Traceback" not in done.stderr and "fault" not in done.stderr, words
        assert done.returncode in (0, 1, 2, 64, 69, 75, 126, 127), (words, done)


def test_lock_list(site: Site) -> None:
    assert site.run("lockersh", "--locklist").stdout == ""
    names = ["zebra", "a-name-that-is-longer-than-twenty-columns", "middle", "\udcff\udcfe"]
    for name in names:
        site.ask(os.fsencode(f"user {name}_user\nlocks {name}\nLOCK"))
    done = site.run("lockersh", "--locklist")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(f"{name:<20} {name}_user\n" for name in sorted(names, key=os.fsencode))
    done = site.run("lockersh", "--locklist", env={**site.environment, "LC_ALL": "C", "LANG": "C"})
    assert done.stdout.count("\n") == 4
    expect_output_error(site, "/dev/full", "lockersh", "--locklist")
    expect_output_error(site, "|", "lockersh", "--locklist")
    for name in names:
        site.ask(os.fsencode(f"locks {name}\nBREAK_LOCK"))


def test_names_in_any_way(site: Site) -> None:
    holder = site.hold("one")
    for words in (["--lock", "one", "--lock", "two"], ["--lock", "one:two"], ["--lock=one:two:three"]):
        assert site.run("lockersh", *words, "printenv IPCLOCKER_LOCK").stdout == "two\n"
    holder.process.terminate()
    holder.end()
    assert site.run("lockersh", "--lock", "\udcff", "printenv IPCLOCKER_LOCK").stdout == "\udcff\n"


def test_verbose(site: Site) -> None:
    holder = site.hold()
    tool = site.start_lockersh("true")
    tool.says("waiting for lock x: ")
    assert re.fullmatch(r"lockersh: \d\d:\d\d:\d\d waiting for lock x: \S+ holds it\n", tool.err)
    holder.process.terminate()
    assert tool.end() == 0
    assert re.fullmatch(r"lockersh: \d\d:\d\d:\d\d obtained lock after \d+\.\d s", tool.err.splitlines()[1])
    assert site.lockersh("true").stderr == "", "and without it nothing"


def test_verbose_on_a_terminal_shows_the_time_waited(site: Site) -> None:
    holder = site.hold()
    terminal = Terminal([site.file, "lockersh", "--lock", "x", "--verbose", "echo ran"], site.environment)
    terminal.expect("waiting for lock x: 1 s")
    terminal.expect("waiting for lock x: 2 s")
    holder.process.terminate()
    terminal.expect("obtained lock after 2|obtained lock after 3")
    terminal.expect("ran")
    assert terminal.end() == 0
    terminal.clean_up()


def test_debug_shows_both_sides(site: Site) -> None:
    lines = site.lockersh("--debug", "true").stderr.splitlines()
    assert "lockersh: > LOCK" in lines and "lockersh: < locked 1" in lines
