"""Writing a manual page in roff, with the macros of man(7) only, so that every man and every groff takes it."""

from __future__ import annotations

import re

from .manpage import Block, Heading, Literal, Page, Paragraph, Tagged

_ESCAPES = {
    "\\": r"\e",
    "-": r"\-",  # else it is a hyphen, which can't be copied to a shell, and where a line may be broken
    "'": r"\(aq",
    "`": r"\(ga",
    "^": r"\(ha",
    "~": r"\(ti",
    '"': r"\(dq",
}
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*\b")


def roff(page: Page) -> str:
    """Write the page as man reads it, in ASCII only."""
    head = f'.TH "{escape(page.name.upper())}" 1 "" "{escape(f"ipclocker {page.version}")}" "User Commands"'
    lines = ['.\\" Made by ipclocker man --roff', head, ".nh", ".ad l"]
    for title, blocks in page.sections:
        lines.append(f'.SH "{escape(title)}"')
        for number, block in enumerate(blocks):
            lines += _block(block, first=not number or isinstance(blocks[number - 1], Heading))
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape a text so that no character is a command for roff, at any place of a line."""
    escaped = "".join(_ESCAPES.get(sign) or _sign(sign) for sign in text)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _sign(sign: str) -> str:
    if sign < " " or sign == "\x7f":
        return " "  # a control character, which no text has
    return sign if sign < "\x7f" else f"\\[u{ord(sign):04X}]"


def _block(block: Block, first: bool) -> list[str]:
    if isinstance(block, Heading):
        return [f'.SS "{escape(block.text)}"']
    if isinstance(block, Paragraph):
        return [*([] if first else [".PP"]), _styled(block.text)]
    if isinstance(block, Tagged):
        return [".TP", _term(block.term), _styled(" ".join(block.text.split()))]
    assert isinstance(block, Literal)
    shown = [escape(line) if line.strip() else ".sp" for line in block.text.split("\n")]
    return [*([] if first else [".PP"]), ".nf", *shown, ".fi"]


def _styled(text: str) -> str:
    """Write a text with the words between backquotes in bold; a single backquote is shown."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    styled = "".join(f"\\fB{escape(part)}\\fR" if number % 2 else escape(part) for number, part in enumerate(parts))
    return f"\\&{styled}" if styled.startswith(".") else styled


def _term(term: str) -> str:
    """Write a term: in bold what is typed, in italics what stands for a value."""
    if "`" not in term:
        return f"\\fI{escape(term)}\\fR" if _PLACEHOLDER.match(term.strip("[")) else f"\\fB{escape(term)}\\fR"
    typed, _, value = term.rpartition("`")
    return _styled(f"{typed}`") + (f" \\fI{escape(value.strip())}\\fR" if value.strip() else "")
