"""Which words of a command line are executed directly, and which by a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipclocker.process.command_line import SHELL, command_line, find_program, shell_remedy

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("words", "executed"),
    [
        (["sleep", "10"], ["sleep", "10"]),
        (["sleep 10"], ["sleep", "10"]),
        (["  sleep \t 10 "], ["sleep", "10"]),
        (["sleep", "1 0"], ["sleep", "1 0"]),
        (["/not/there", "x"], ["/not/there", "x"]),
        (["cat", "a\u00a0b\u2003c"], ["cat", "a\u00a0b\u2003c"]),
        (["cat", "a\x0bb\rc"], ["cat", "a\x0bb\rc"]),
        (["cat", "a=b"], ["cat", "a=b"]),
        (["rm", "-r", "old dir"], ["rm", "-r", "old dir"]),
        (["cat", "", "a\tb", ""], ["cat", "", "a\tb", ""]),
        (["sleep 10", ""], ["sleep", "10"]),
        (["/not/there", "a b"], ["/not/there", "a b"]),
    ],
)
def test_executed_directly(words: list[str], executed: list[str]) -> None:
    assert command_line(words, ENVIRONMENT) == executed


@pytest.mark.parametrize("character", list("$&*(){}[]'\";\\|?<>~`#\n"))
def test_a_character_that_means_something_to_a_shell(character: str) -> None:
    text = f"cat a{character}b"
    assert command_line([text], ENVIRONMENT) == [SHELL, "-c", text]
    assert command_line(text.split(" "), ENVIRONMENT) == [SHELL, "-c", text]
    assert command_line(["cat", "a b", text], ENVIRONMENT) == [SHELL, "-c", f"cat a b {text}"]
    assert command_line(text.split(" "), ENVIRONMENT, exact=True) == text.split(" ")
    assert command_line([text], ENVIRONMENT, exact=True) == [text]


@pytest.mark.parametrize("text", ["A=5 cat", " A=5", "exit 7", "no-such-program x", "a\u00a0cat", ". file", "! cat"])
def test_what_only_a_shell_can_do(text: str) -> None:
    assert command_line([text], ENVIRONMENT) == [SHELL, "-c", text]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["A=5", "rm", "-r", "old dir"], "A=5 rm -r 'old dir'"),
        (["exec", "rm", "old dir", ""], "exec rm 'old dir' ''"),
        (["rm -r", "old dir"], "'rm -r' 'old dir'"),
    ],
)
def test_a_word_with_a_blank_stays_one_word_for_a_shell_as_well(words: list[str], text: str) -> None:
    assert command_line(words, ENVIRONMENT) == [SHELL, "-c", text]


def test_what_helps_who_gives_a_line_for_a_shell_in_the_place_of_a_program() -> None:
    for line in ("a | b", "make regress", "A=5", "a;b"):
        assert "write sh -c in front of a line" in shell_remedy([line])
    for words in (["make"], ["no-such", "a | b"], [""]):
        assert shell_remedy(words) == ""


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
