"""Manual pages of the tools, made of what --help is made of, and what man and groff make of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ipclocker import errors
from ipclocker.cli import TOOLS, command_line, pidstatd
from ipclocker.cli import run as run_tool
from ipclocker.cli.tool_specs import describe
from ipclocker.docs.exit_codes import MEANINGS, exit_codes
from ipclocker.docs.manpage import ENVIRONMENT, Literal, Page, Paragraph, Tagged, manual_page
from ipclocker.docs.plain_text import plain
from ipclocker.docs.roff import roff
from ipclocker.docs.tool_spec import UNLINKED, Tool
from ipclocker.version import VERSION

from ..support import PROJECT
from ..support.processes import run_ipclocker

EVERY = ["ipclocker", *TOOLS]
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
each_tool = pytest.mark.parametrize("name", EVERY)
needs_groff = pytest.mark.skipif(not shutil.which("groff") or not shutil.which("man"), reason="needs man and groff")


def page_of(name: str) -> str:
    return plain(manual_page(describe(name), VERSION, TOOLS))


def words_of(text: str) -> list[str]:
    """What is said, however it is filled."""
    return text.replace("`", "").split()


def is_said(text: str, within: str) -> bool:
    return " ".join(words_of(text)) in " ".join(words_of(within))


def commands(tool: Tool) -> list[list[str]]:
    """The words that each command line of a tool begins with, as ipclocker takes them."""
    lines = [command.name.split() for command in tool.command_lines]
    return [line[1:] if line[0] == "ipclocker" else line for line in lines]


@each_tool
def test_all_that_help_says_is_on_the_page(name: str) -> None:
    page = page_of(name)
    if name == "ipclocker":
        assert all(is_said(f"{tool} {what}", page) for tool, what in TOOLS.items())
    for line in commands(describe(name)):
        shown = run_ipclocker(*line, "--help").stdout
        assert set(OPTION.findall(shown)) <= set(OPTION.findall(page)), line
        for part in shown.split("\n\n"):
            if not re.match(r"Usage:|Options:|Arguments:| +(Example|Version):|\w", part):
                assert is_said(part, page), part


@each_tool
def test_all_options_of_the_page_are_in_help(name: str) -> None:
    tool = describe(name)
    lines = commands(tool) if tool.command.text else [[name], *commands(tool)]
    shown = "".join(run_ipclocker(*line, "--help").stdout for line in lines)
    for command in (tool.command, *tool.subcommands):
        for option in command.options:
            assert set(option.names) <= set(OPTION.findall(shown))
            assert is_said(option.text, shown) or option.names == ("--help",)
        assert is_said(command.example, shown) or name == "ipclocker"


def test_an_option_that_is_added_to_a_tool_is_in_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class WithMore(command_line.CommandLine, name="pidstatd", example="pidstatd --colour red"):
        """Serve in colours."""

        colour: str = command_line.option("Its paint\\.", value="NAME", default="blue-ish")

    monkeypatch.setattr(pidstatd, "COMMAND_LINES", (WithMore,))
    with pytest.raises(SystemExit):
        run_tool(["pidstatd", "--help"])
    page = page_of("pidstatd")
    for text in (capsys.readouterr().out, page):
        assert is_said("--colour NAME Its paint\\. [default: blue-ish]", text)
        assert is_said("Serve in colours.", text)


@each_tool
def test_a_page_has_what_a_page_needs(name: str) -> None:
    sections = dict(manual_page(describe(name), VERSION, TOOLS).sections)
    needed = {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"}
    assert needed <= set(sections)
    assert all(sections.values())
    source = run_ipclocker("man", name, "--roff").stdout
    assert list(sections) == re.findall(r'^\.SH "(.*)"$', source, re.MULTILINE)


@each_tool
def test_exit_codes_that_a_help_names_are_in_the_table(name: str) -> None:
    tool = describe(name)
    known = {code for code, _ in exit_codes(name)}
    for command in (tool.command, *tool.subcommands):
        for sentence in re.findall(r"[^.]*exit code[^.]*\.", command.text, re.IGNORECASE):
            assert set(re.findall(r"\b\d+\b(?=[ ,])", sentence)) <= known


def test_the_table_of_exit_codes_has_all_of_them() -> None:
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert codes - {errors.SIGNALLED} == set(MEANINGS)


def test_all_variables_are_on_a_page() -> None:
    sources = "".join(path.read_text() for path in (PROJECT / "ipclocker").rglob("*.py"))
    asked = set(re.findall(r"environ(?:\.get\(|\[)\s*\"(IPCLOCKER_\w+)\"", sources))
    assert asked and asked <= set(ENVIRONMENT)


@each_tool
def test_variables_and_files_that_are_named_are_explained(name: str) -> None:
    tool = describe(name)
    named = set(re.findall(r"\bIPCLOCKER_[A-Z]+\b", repr(tool)))
    sections = dict(manual_page(tool, VERSION, TOOLS).sections)
    assert named <= {block.term for block in sections["ENVIRONMENT"] if isinstance(block, Tagged)}
    files = {block.term for block in sections.get("FILES", ()) if isinstance(block, Tagged)}
    assert ("/etc/services" in files) == ("the service " in repr(tool) or name == "ipclocker")
    assert ("/var/lib/ipclocker" in files) == ("state folder" in repr(tool) or name == "ipclocker")


@needs_groff
@each_tool
def test_man_and_groff_have_nothing_against_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.1"
    file.write_text(run_ipclocker("man", name, "--roff").stdout, encoding="ascii")
    for command in (["groff", "-ww", "-man", "-Tutf8"], ["man", "--warnings", "-l"]):
        done = subprocess.run([*command, file], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(r".\x08|\x1b\[[\d;]*m", "", done.stdout).replace("\u2010\n", "")
    for option in describe(name).command.options:
        assert is_said(option.text, shown), "as a page without hyphenation has it"


@needs_groff
def test_nothing_in_a_text_means_anything_to_roff() -> None:
    ugly = [
        ".SH no",
        "'bp",
        r"\fB \n(.x \", back\slash",
        'a "quoted" -word- ~^`',
        "é — ü",
        "...",
        "`.dot`",
        "a`b",
        r"\\",
    ]
    blocks = tuple(block(text) for text in ugly for block in (Paragraph, Literal))
    terms = tuple(Tagged(text, text) for text in ugly)
    source = roff(Page("ugly", "1", (("NAME", (Paragraph("ugly - it"),)), ("UGLY", blocks + terms))))
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tutf8", "-P-c", "-P-b", "-P-u"],
        input=source,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    for text in ugly:
        expected = text.replace("`", "") if text.count("`") == 2 else text
        assert done.stdout.count(expected) >= 3, (text, done.stdout)


def test_plain_text_where_nobody_turns_pages() -> None:
    done = run_ipclocker("man", "lockersh")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == page_of("lockersh")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert run_ipclocker("man").stdout == page_of("ipclocker") == run_ipclocker("man", "ipclocker").stdout


def test_no_such_page() -> None:
    done = run_ipclocker("man", "nonsense")
    assert (done.returncode, done.stdout) == (64, "")
    assert re.fullmatch(r"man: there is no tool 'nonsense': one of .*\n", done.stderr)


def test_every_tool_can_be_described() -> None:
    """A module that does not say what its command line is has no page, and fails here by its name."""
    for name in TOOLS:
        tool = describe(name)
        called = f"ipclocker {name}" if name in UNLINKED else name
        assert called in tool.command.example, name
