"""Commands that pass through shells unchanged."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker.run.uri_command import decode, decode_command, encode, show

SAFE = frozenset(f"{string.ascii_letters}{string.digits}._/-%".encode())


@given(st.lists(st.binary(), min_size=1, max_size=4))
def test_what_is_encoded_is_decoded(words: list[bytes]) -> None:
    encoded = encode(words)
    assert decode(encoded) == b" ".join(words)
    assert SAFE.issuperset(encoded)
    assert not encoded.startswith(b"-")


@given(st.lists(st.binary(min_size=1), min_size=1, max_size=3), st.integers(1, 4))
def test_as_often_as_it_is_encoded(words: list[bytes], times: int) -> None:
    text = b" ".join(words)
    for _ in range(times):
        text = encode([text])
    for _ in range(times):
        text = decode(text)
    assert text == b" ".join(words)


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        (b"a+b%20c", b"a b c"),
        (b"%2b%2B", b"++"),
        (b"%ff%FE%00", b"\xff\xfe\0"),
        (b"100%", b"100%"),
        (b"%4", b"%4"),
        (b"%zz%g0%+1", b"%zz%g0% 1"),
        (b"%2541", b"%41"),
        (b"\xff", b"\xff"),
        (b"", b""),
    ],
)
def test_decode(encoded: bytes, decoded: bytes) -> None:
    assert decode(encoded) == decoded


def test_command() -> None:
    assert decode_command([b"echo", b"%24HOME"]).argv() == [b"/bin/sh", b"-c", b"echo $HOME"]
    assert decode_command([b"a%20b", b"c"], b"").argv() == [b"a b", b"c"]
    assert decode_command([b"a"], b"/bin/bash%20-e+-c").argv() == [b"/bin/bash", b"-e", b"-c", b"a"]
    assert decode_command([b"a"], folder=b"/with%20space").folder == b"/with space"


def test_show() -> None:
    inner = b"uriexec --cd=/tmp --shell /bin/zsh%20-c " + encode([b"echo", b"$HOME;", b"x"])
    outer = decode_command([encode([b"ssh host", inner])], folder=b"%2Fa")
    assert list(show(outer)) == [
        b"cd /a",
        b"ssh host " + inner,
        b"  cd /tmp",
        b"  /bin/zsh -c echo $HOME; x",
    ]
    assert list(show(decode_command([b"a%0Ab"]))) == [b"a", b"b"]


@given(st.lists(st.sampled_from([b"uriexec", b"--cd", b"--shell=", b"--", b"x", b"%20", b"'"]), min_size=1, max_size=8))
def test_anything_can_be_shown(words: list[bytes]) -> None:
    assert len(list(show(decode_command(words)))) < 100
