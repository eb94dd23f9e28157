"""Installing completions for a user where each shell looks for them, as bash-completion, zsh and fish document it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def install(shell: str, script: str, names: Sequence[str]) -> list[str]:
    """Write the script where the shell finds it for all `names`; return lines on what was done and what is left to do.

    The first name has the file, the others are links to it, where a shell looks for a file of the command's name.
    Raises OSError.
    """
    folder = _folder(shell)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".fish" if shell == "fish" else ""
    file = folder / ("_ipclocker" if shell == "zsh" else f"{names[0]}{suffix}")
    _write(file, script)
    lines = [f"{shell}: wrote {file}"]
    if shell != "zsh":
        for name in names[1:]:
            _link(folder / f"{name}{suffix}", file.name)
        lines.append(f"{shell}: linked to it, in the same folder: {', '.join(names[1:])}")
    return [*lines, f"{shell}: {_advice(shell, file)}"]


def _folder(shell: str) -> Path:
    data = _named("XDG_DATA_HOME", Path("~/.local/share"))
    if shell == "bash":
        return _named("BASH_COMPLETION_USER_DIR", data / "bash-completion") / "completions"
    if shell == "fish":
        return _named("XDG_CONFIG_HOME", Path("~/.config")) / "fish" / "completions"
    return data / "zsh" / "site-functions"


def _named(variable: str, otherwise: Path) -> Path:
    """Find a folder by a variable; a relative one is ignored, as the XDG Base Directory Specification has it."""
    named = os.environ.get(variable, "")
    return Path(named) if named.startswith("/") else Path(os.path.expanduser(otherwise))


def _write(file: Path, text: str) -> None:
    """Write another file and rename it, so that a shell that starts meanwhile reads all or nothing."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.symlink_to(target)
    temporary.replace(link)


def _advice(shell: str, file: Path) -> str:
    if shell == "bash":
        return f"start a new shell, with the package bash-completion; or without it, put '. {file}' into ~/.bashrc"
    if shell == "zsh":
        return f"put 'fpath=({file.parent} $fpath)' into ~/.zshrc, before its 'autoload -U compinit; compinit'"
    return "start a new shell, or go on in this one: it is read when it is needed"
