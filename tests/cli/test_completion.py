"""Completion: real shells read the scripts, and complete command lines by them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ipclocker.cli import TOOLS
from ipclocker.cli.tool_specs import describe
from ipclocker.docs.completion.model import SHELLS, linked, nodes
from ipclocker.docs.tool_spec import FAMILY, UNLINKED

from ..support.processes import run_ipclocker

NODES = nodes(describe(FAMILY), map(describe, TOOLS))
NAMES = linked(NODES)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_ipclocker(*words, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell, in a file, beside a folder and a file to be found."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "files").mkdir()
    (folder / "files" / "a file").write_text("")
    (folder / "files" / "afolder").mkdir()
    found = {}
    for shell in SHELLS:
        done = run("--show-completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        found[shell] = folder / shell
        found[shell].write_text(done.stdout)
    return found


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(shell), reason=f"there is no {shell} here")


def bash(scripts: dict[str, Path], *words: str) -> set[str]:
    """What bash offers for the last word."""
    program = (
        'source "$1" || exit; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); '
        'COMP_LINE=$(sed "s/ \\([=:]\\) */\\1/g" <<<"$*"); _ipclocker || exit; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "--norc", "-uc", program, "bash", str(scripts["bash"]), *words]
    done = subprocess.run(command, cwd=scripts["bash"].parent / "files", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.splitlines()) - {""}


def fish(scripts: dict[str, Path], *words: str) -> set[str]:
    """What fish offers for the last word."""
    program = "source $argv[1]; complete -C $argv[2]"
    command = ["fish", "--no-config", "-c", program, str(scripts["fish"]), " ".join(words)]
    done = subprocess.run(command, cwd=scripts["fish"].parent / "files", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return {line.partition("\t")[0] for line in done.stdout.splitlines()}


def lines_of(name: str) -> list[list[str]]:
    """How a command line may begin that is one of the nodes."""
    words = [] if name == FAMILY else name.split()
    return [[FAMILY, *words], *([words] if words and words[0] not in UNLINKED else [])]


def options_of(name: str) -> set[str]:
    return {option for node in NODES if node.name == name for each in node.options for option in each.names}


each_node = pytest.mark.parametrize("name", [node.name for node in NODES])


def test_every_tool_and_sub_command_is_there() -> None:
    assert set(TOOLS) <= {node.name for node in NODES}
    assert "lockstat show" in {node.name for node in NODES}
    assert set(NAMES) == {FAMILY, *TOOLS} - UNLINKED


@needs("bash")
class TestBash:
    @each_node
    def test_options(self, name: str, scripts: dict[str, Path]) -> None:
        for line in lines_of(name):
            assert bash(scripts, *line, "-") == options_of(name)
            assert bash(scripts, *line, "--hel") == {"--help"}

    @each_node
    def test_sub_commands(self, name: str, scripts: dict[str, Path]) -> None:
        [node] = [node for node in NODES if node.name == name]
        if node.subcommands:
            for line in lines_of(name):
                assert bash(scripts, *line, "") == {word for word, _ in node.subcommands}

    def test_a_link_anywhere(self, scripts: dict[str, Path]) -> None:
        assert bash(scripts, "/opt/bin/lockstat", "br") == {"break"}
        assert bash(scripts, "./ipclocker", "lockst") == {"lockstat"}

    def test_values(self, scripts: dict[str, Path]) -> None:
        assert bash(scripts, "lockerd", "--pid-file", "a") == {"a file", "afolder"}
        assert bash(scripts, "lockerd", "--pid-file", "=", "a") == {"a file", "afolder"}
        assert bash(scripts, "lockerd", "--pid-file", "=") == {"a file", "afolder"}
        assert bash(scripts, "lockerd", "--state-dir", "a") == {"afolder"}
        assert bash(scripts, "pidwatch", "--signal", "T") == {"TERM"}
        assert bash(scripts, "lockersh", "--timeout", "") == set()
        assert bash(scripts, "lockersh", "--lock", "a", ":", "b", "--release-") == {"--release-tries"}
        assert bash(scripts, "lockersh", "--lock", "=", "a", ":", "b", "--release-") == {"--release-tries"}
        assert bash(scripts, "ipclocker", "--install-completion", "") == set(SHELLS)

    def test_words(self, scripts: dict[str, Path]) -> None:
        assert bash(scripts, "ipclocker", "man", "lockst") == {"lockstat"}
        assert bash(scripts, "pidstat", "--host", "x", "") == {"exists"}
        assert bash(scripts, "lockstat", "--json", "br") == {"break"}

    def test_a_command_under_a_lock_is_completed_as_alone(self, scripts: dict[str, Path]) -> None:
        assert "printf" in bash(scripts, "lockersh", "--lock", "x", "print")
        assert bash(scripts, "lockersh", "--lock", "x", "cat", "a") == {"a file", "afolder"}
        assert bash(scripts, "lockersh", "--lock", "x", "cat", "--lo") == set(), "its options are not lockersh's"
        assert "printf" in bash(scripts, "lockersh", "--", "print")


@needs("fish")
class TestFish:
    @each_node
    def test_options(self, name: str, scripts: dict[str, Path]) -> None:
        for line in lines_of(name):
            found = fish(scripts, *line, "--")
            assert {word for word in found if word.startswith("--")} == {
                option for option in options_of(name) if option.startswith("--")
            }

    def test_the_rest(self, scripts: dict[str, Path]) -> None:
        assert fish(scripts, "ipclocker", "lockst") == {"lockstat"}
        assert fish(scripts, "lockstat", "br") == fish(scripts, "ipclocker", "lockstat", "br") == {"break"}
        assert fish(scripts, "lockerd", "--pid-file", "a") == {"a file", "afolder/"}
        assert fish(scripts, "lockerd", "--state-dir", "a") == {"afolder/"}
        assert fish(scripts, "pidwatch", "--signal", "T") == {"TERM"}
        assert fish(scripts, "lockersh", "--timeout", "a") == set()
        assert fish(scripts, "ipclocker", "man", "lockst") == {"lockstat"}
        assert "printf" in fish(scripts, "lockersh", "--lock", "x", "print")
        assert "printf" in fish(scripts, "ipclocker", "lockersh", "--lock", "x", "print")


@pytest.mark.parametrize("shell", SHELLS)
def test_installing(shell: str, tmp_path: Path) -> None:
    for _ in range(2):  # the second time over the first
        done = run(
            "--install-completion", HOME=str(tmp_path), SHELL=f"/usr/bin/{shell}", XDG_DATA_HOME="", XDG_CONFIG_HOME="x"
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert all(line.startswith(f"{shell}: ") for line in done.stdout.splitlines())
    [written] = re.findall(r": wrote (.*)", done.stdout)
    script = run("--show-completion", shell).stdout
    assert Path(written).read_text() == script
    assert Path(written).relative_to(tmp_path) == Path(
        {
            "bash": ".local/share/bash-completion/completions/ipclocker",
            "zsh": ".local/share/zsh/site-functions/_ipclocker",
            "fish": ".config/fish/completions/ipclocker.fish",
        }[shell]
    )
    if shell != "zsh":
        suffix = ".fish" if shell == "fish" else ""
        files = {path.name: path.read_text() for path in Path(written).parent.iterdir()}
        assert files == {f"{name}{suffix}": script for name in NAMES}
    else:
        assert f"fpath=({Path(written).parent} $fpath)" in done.stdout


def test_the_folders_that_the_environment_names(tmp_path: Path) -> None:
    environment = {"XDG_DATA_HOME": f"{tmp_path}/data", "XDG_CONFIG_HOME": f"{tmp_path}/config"}
    for shell, place in [
        ("bash", "data/bash-completion/completions/lockersh"),
        ("fish", "config/fish/completions/lockersh.fish"),
    ]:
        assert run("--install-completion", shell, **environment).returncode == 0
        assert (tmp_path / place).exists()


@pytest.mark.parametrize(
    ("words", "shell"),
    [
        (["--show-completion", "tcsh"], "/bin/bash"),
        (["--show-completion"], "/bin/ksh"),
        (["--show-completion"], ""),
        (["--install-completion", "bash", "zsh"], ""),
    ],
)
def test_what_is_no_shell(words: list[str], shell: str) -> None:
    done = run(*words, SHELL=shell)
    assert (done.returncode, done.stdout) == (64, "")
    assert re.fullmatch(r"ipclocker: .*\n", done.stderr)


def test_each_tool_understands_it_too() -> None:
    assert run("uriexec", "--show-completion=fish").stdout.startswith("# Completion for fish")
    assert run("lockersh", "--show-completion", "zsh").stdout.startswith("#compdef ipclocker lockerd lockersh ")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("a file in the way")
    done = run("--install-completion", "bash", HOME=str(tmp_path), XDG_DATA_HOME="")
    assert done.returncode == 74
    assert re.fullmatch(r"ipclocker: the completion can't be written to .*: Not a directory; .*\n", done.stderr)


def test_the_scripts_start_nothing_of_ours(scripts: dict[str, Path]) -> None:
    for script in scripts.values():
        assert not re.search(r"\$\((command )?(ipclocker|python|lockersh)|`", script.read_text())
