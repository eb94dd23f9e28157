"""Which words of a command line are executed directly, and which by a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipclocker.process.command_line import SHELL, command_line, find_program

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("words", "executed"),
    [
        (["sleep", "10"], ["sleep", "10"]),
        (["sleep 10"], ["sleep", "10"]),
        (["  sleep \t 10 "], ["sleep", "10"]),
        (["sleep", "1 0"], ["sleep", "1", "0"]),
        (["/not/there", "x"], ["/not/there", "x"]),
        (["cat", "a\u00a0b\u2003c"], ["cat", "a\u00a0b\u2003c"]),
        (["cat", "a\x0bb\rc"], ["cat", "a\x0bb\rc"]),
        (["cat", "a=b"], ["cat", "a=b"]),
        (["cat", "#", "x"], ["cat", "#", "x"]),
    ],
)
def test_executed_directly(words: list[str], executed: list[str]) -> None:
    assert command_line(words, ENVIRONMENT) == executed


@pytest.mark.parametrize("character", list("$&*(){}[]'\";\\|?<>~`\n"))
def test_a_character_that_means_something_to_a_shell(character: str) -> None:
    text = f"cat a{character}b"
    assert command_line([text], ENVIRONMENT) == [SHELL, "-c", text]
    assert command_line(text.split(" "), ENVIRONMENT) == [SHELL, "-c", text]
    assert command_line(text.split(" "), ENVIRONMENT, no_shell=True) == text.split(" ")


@pytest.mark.parametrize("text", ["A=5 cat", " A=5", "exit 7", "no-such-program x", "a\u00a0cat", ". file", "! cat"])
def test_what_only_a_shell_can_do(text: str) -> None:
    assert command_line([text], ENVIRONMENT) == [SHELL, "-c", text]


def test_find_program(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    (first / "tool").write_text("not executable")
    (second / "tool").write_text("executable")
    (second / "tool").chmod(0o755)
    (first / "folder").mkdir()
    environment = {"PATH": f"{first}:{second}"}
    assert find_program("tool", environment) == f"{second}/tool"
    assert find_program("folder", environment) is None
    assert find_program("", environment) is None
    assert find_program("./anything", environment) == "./anything"
    assert find_program("sh", {}) is not None, "there is a usual path"


def test_an_empty_entry_is_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tool").write_text("")
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert find_program("tool", {"PATH": ""}) == "./tool"
    assert find_program("tool", {"PATH": "/nowhere:"}) == "./tool"
    assert find_program("tool", {"PATH": "/nowhere"}) is None
