"""Text and the bytes it is on the wire and in files of state: UTF-8 under any locale, so that all hosts mean the same.

Bytes that are not UTF-8 are kept: they become surrogates, and these become the bytes again. This is not for a path or
a word of a command that is run: their bytes go by the encoding of the process (`os.fsencode`), which is the locale's in
a program that uses the library. The tools themselves run in Python's UTF-8 mode, where both are the same.
"""

from __future__ import annotations


def encode_text(text: str) -> bytes:
    """The bytes that say this text, a name say.

    A lone surrogate that stands for no byte (as a broken JSON may bring) has none in UTF-8: UnicodeEncodeError, a
    ValueError.
    """
    return text.encode("utf-8", "surrogateescape")


def decode_text(data: bytes) -> str:
    """The text that these bytes say; whatever they are, `encode_text` gives them again."""
    return data.decode("utf-8", "surrogateescape")
