"""Completion in the real shells, by the scripts that the built file prints and installs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker.cli import TOOLS
from ipclocker.cli.tool_specs import describe
from ipclocker.docs.tool_spec import FAMILY, UNLINKED

from ..support.site import new_site
from .shells import SHELLS, Fish, Shell, shell

LINKS = [tool for tool in TOOLS if tool not in UNLINKED]
READ = {
    "bash": ". {0}/_ipclocker",
    "zsh": "fpath=({0} $fpath); autoload -Uz compinit; compinit -u -D",
    "fish": ". {0}/_ipclocker",
}


def options(tool: str, command: str = "") -> set[str]:
    """All options of a tool, or of a sub-command of it."""
    found = describe(tool)
    lines = {line.name: line for line in (found.command, *found.subcommands)}
    return {
        name
        for option in lines[f"{tool} {command}" if command else found.command.name].options
        for name in option.names
    }


def subcommands(tool: str) -> set[str]:
    return {command.name.split()[-1] for command in describe(tool).subcommands}


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL")}
    return {**kept, "HOME": str(folder), "ZDOTDIR": str(folder)}


@pytest.fixture(scope="module", params=SHELLS)
def running(
    request: pytest.FixtureRequest, built_file: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell | Fish]:
    """A shell that has read what --show-completion prints."""
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp(name)
    (folder / ".zshrc").touch()
    (folder / "data").mkdir()
    (folder / "data" / "file").touch()
    (folder / "data" / "folder").mkdir()
    with new_site(built_file, cache) as site:
        done = site.run("--show-completion", name)
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "_ipclocker").write_text(done.stdout)
    setup = f"{READ[name].format(folder)}\ncd {folder / 'data'}\n"
    with shell(name, setup, ["ipclocker", *LINKS], folder, environment(folder)) as found:
        yield found


def bare(offers: set[str]) -> set[str]:
    """Offers without the = that zsh puts behind an option that takes a value, and the / behind a folder."""
    return {offer.rstrip("=/") for offer in offers}


def test_tools(running: Shell | Fish) -> None:
    assert bare(running.complete("ipclocker ")) == set(TOOLS)
    assert bare(running.complete("ipclocker check-")) == {"check-lockerd", "check-pidstatd"}
    assert bare(running.complete("ipclocker man check-")) == {"check-lockerd", "check-pidstatd"}


@pytest.mark.parametrize("tool", [FAMILY, *TOOLS])
def test_options(running: Shell | Fish, tool: str) -> None:
    """All of each tool, and of each of its commands; by a link, too."""
    calls = [tool] if tool == FAMILY else [f"ipclocker {tool}", *([tool] if tool in LINKS else [])]
    for call in calls:
        expected = {name for name in options(tool) if name.startswith("--")}
        assert bare(running.complete(f"{call} --")) == expected
        for command in subcommands(tool):
            expected = {name for name in options(tool, command) if name.startswith("--")}
            assert bare(running.complete(f"{call} {command} --")) == expected


@pytest.mark.parametrize("call", ["lockersh", "ipclocker lockersh"])
def test_options_behind_options(running: Shell | Fish, call: str) -> None:
    for before in (
        "--lock a",
        "--lock=a",
        "--lock a:b --no-shell",
        "--dhost a:b:c",
        "--timeout 5 --lock x --verbose",
    ):
        assert bare(running.complete(f"{call} {before} --hold")) == {"--hold-timeout"}
    assert running.complete(f"{call} --lock --hold") == set(), "that is the name of the lock"


def test_commands_of_tools(running: Shell | Fish) -> None:
    commands = subcommands("lockstat")
    assert bare(running.complete("lockstat ")) == bare(running.complete("ipclocker lockstat ")) == commands
    assert bare(running.complete("lockstat bre")) == {"break"}
    assert bare(running.complete("lockstat break nightly --fo")) == {"--force"}
    assert running.complete("lockstat break br") == set()
    assert bare(running.complete("pidstat ex")) == {"exists"}


def test_values(running: Shell | Fish) -> None:
    assert bare(running.complete("lockerd --state f")) == {"file", "folder"}
    assert bare(running.complete("lockerd --state-dir f")) == {"folder"}
    assert bare(running.complete("lockersh --lost-signal TER")) == {"TERM"}
    assert "printenv" in running.complete("pidwatch --killer printe")
    assert bare(running.complete("ipclocker --show-completion z")) == {"zsh"}
    assert bare(running.complete("check-lockerd --host localhos")) <= {"localhost"}


def test_values_behind_an_equals_sign(running: Shell | Fish) -> None:
    assert {offer.rpartition("=")[2] for offer in bare(running.complete("lockerd --state=fi"))} == {"file"}
    assert {offer.rpartition("=")[2] for offer in bare(running.complete("ipclocker --show-completion=z"))} == {"zsh"}


@pytest.mark.parametrize("call", ["lockersh --lock x", "ipclocker lockersh --lock x --verbose", "pidwatch --pid 1 --"])
def test_a_command_behind_the_options(running: Shell | Fish, call: str) -> None:
    """Its name among all programs, then files, and none of our options."""
    assert {"printf", "printenv"} <= running.complete(f"{call} print")
    assert bare(running.complete(f"{call} cat f")) == {"file", "folder"}
    assert not options("lockersh") & bare(running.complete(f"{call} sleep --lo"))
