"""Encodes commands so that no shell on their way changes them, and decodes them: a special byte is % and two digits.

Words are bytes, as the system has them; nothing here depends on an encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

SHELL = b"/bin/sh -c"
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_SPECIAL = re.compile(rb"[^A-Za-z0-9._/-]")
_CALL = re.compile(rb"(?:\A|[\s;&|(\"'/])uriexec\s+(.*)\Z", re.DOTALL)


class DecodedCommand(NamedTuple):
    """A decoded command: the words of the shell that gets it, its own words, and the folder to run it in."""

    shell: list[bytes]
    words: list[bytes]
    folder: Optional[bytes] = None

    @property
    def text(self) -> bytes:
        """The command as the shell gets it."""
        return b" ".join(self.words)

    def argv(self) -> list[bytes]:
        """Return what to execute: the shell with the command, or without a shell the words themselves."""
        return [*self.shell, self.text] if self.shell else self.words


def decode(text: bytes) -> bytes:
    """Decode each % with two digits to a byte, and each + to a space; any other % stays as it is."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), text.replace(b"+", b" "))


def encode(words: Sequence[bytes]) -> bytes:
    """Encode words as one word in which nothing means anything to a shell; decoded they have a space between."""
    text = _SPECIAL.sub(lambda found: b"%%%02X" % found[0][0], b" ".join(words))
    return b"%2D" + text[1:] if text.startswith(b"-") else text  # else it would be an option


def decode_command(words: Sequence[bytes], shell: bytes = SHELL, folder: bytes | None = None) -> DecodedCommand:
    """Return the command of encoded words, with the encoded words of its shell and its encoded folder."""
    return DecodedCommand(
        decode(shell).split(),
        [decode(word) for word in words],
        None if folder is None else decode(folder),
    )


def show(command: DecodedCommand) -> Iterator[bytes]:
    """Yield the command in lines for people: its text, and each uriexec within it decoded, a level deeper."""
    prefix = b""
    while True:
        if command.folder is not None:
            yield prefix + b"cd " + command.folder
        lines = command.text.split(b"\n")
        if command.shell != SHELL.split():
            lines[0] = b" ".join(command.shell) + b" " + lines[0]
        for line in lines:
            yield prefix + line
        found = _CALL.search(command.text)
        if found is None:
            return
        inner = _nested(found[1].split())
        if inner is None or inner.text == command.text:
            return
        command, prefix = inner, prefix + b"  "


def _nested(words: list[bytes]) -> DecodedCommand | None:
    """Return the command of a uriexec within another command, as far as it is clear without its shell."""
    options = {b"--cd": b"", b"--shell": SHELL}
    while words and words[0].startswith(b"--"):
        name, equals, value = words.pop(0).partition(b"=")
        if name in options and (equals or words):
            options[name] = value if equals else words.pop(0)
    if not words:
        return None
    return decode_command(words, options[b"--shell"], options[b"--cd"] or None)
