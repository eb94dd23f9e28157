"""Text and its bytes: UTF-8, and whatever is not UTF-8 is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipclocker.net.text import decode_text, encode_text


@given(st.binary())
def test_any_bytes_come_out_as_they_came_in(data: bytes) -> None:
    assert encode_text(decode_text(data)) == data


@given(st.text())
def test_text_is_utf_8(text: str) -> None:
    assert encode_text(text) == text.encode("utf-8")
    assert decode_text(encode_text(text)) == text
