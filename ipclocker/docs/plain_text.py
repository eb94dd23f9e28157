"""A manual page as plain text, for where there is no man, or nobody who could turn its pages."""

from __future__ import annotations

import textwrap

from .manpage import Block, Heading, Literal, Page, Paragraph, Tagged

_INDENT = " " * 4
_NARROWEST, _WIDEST = 40, 100  # columns


def plain(page: Page, width: int = 80) -> str:
    """The page for a terminal of so many columns."""
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
