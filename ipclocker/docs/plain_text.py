"""Writing a manual page as plain text, for hosts without man and for output that is not a terminal."""

from __future__ import annotations

import textwrap

from .manpage import Block, Heading, Literal, Page, Paragraph, Tagged

_INDENT = " " * 4
_NARROWEST, _WIDEST = 40, 100  # columns: longer lines are hard to read, shorter ones have no room for indents


def plain(page: Page, width: int = 80) -> str:
    """Write the page for a terminal of `width` columns."""
    width = max(_NARROWEST, min(width, _WIDEST))
    parts = []
    for title, blocks in page.sections:
        parts.append(title + "\n" + "\n".join(_block(block, width) for block in blocks).strip("\n"))
    return "\n\n".join(parts) + "\n"


def _block(block: Block, width: int) -> str:
    if isinstance(block, Heading):
        return f"\n  {block.text}"
    if isinstance(block, Paragraph):
        return _filled(block.text, _INDENT, width) + "\n"
    if isinstance(block, Tagged):
        term = block.term.replace("`", "")
        return f"{_INDENT}{term}\n{_filled(block.text, _INDENT * 2, width)}"
    assert isinstance(block, Literal)
    return textwrap.indent(block.text, _INDENT) + "\n"


def _filled(text: str, indent: str, width: int) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
