"""The variables that say under which grants a command runs: what is written is read, and nothing else is believed."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ipclocker.lock.grant_variables import grant_variables, space_names, tokens_in
from ipclocker.net.address import Address

names = st.binary(min_size=1, max_size=9).filter(lambda name: name.split() == [name])


@example({"a\u00a0b\u2028".encode(): 1, b"\x85": 2}, "here:1")  # white space for text, not for names
@given(st.dictionaries(names, st.integers(0, 2**63), min_size=1, max_size=4), st.text(min_size=1))
def test_what_is_written_is_read(grants: dict[bytes, int], space: str) -> None:
    written = grant_variables(grants.items(), space)
    environment = {name: value for name, value in written.items() if value is not None}
    assert tokens_in(environment, [space, "other"]) == tokens_in(environment, ["other", space]) == grants
    assert tokens_in(environment, [f"{space}x"]) == {}
    environment.pop("IPCLOCKER_SPACE")
    assert tokens_in(environment, [f"{space}x"]) == grants, "an older lockersh does not say it"


def test_without_tokens_the_variable_is_taken_away() -> None:
    written = grant_variables([(b"a", 5), (b"b", None)], "here:1")
    assert written == {"IPCLOCKER_LOCK": "a b", "IPCLOCKER_TOKEN": None, "IPCLOCKER_SPACE": "here:1"}


@pytest.mark.parametrize("tokens", ["", "1 2", "x", "-1", "+1", "1_0", "٣", "9" * 21, "1.5"])
def test_what_makes_no_sense_is_not_believed(tokens: str) -> None:
    assert tokens_in({"IPCLOCKER_LOCK": "a", "IPCLOCKER_TOKEN": tokens}, ["here:1"]) == {}
    assert tokens_in({}, ["here:1"]) == {}


def test_a_space_has_the_identity_that_the_server_tells_and_its_address_from_older_clients() -> None:
    assert space_names(Address(socket.AF_INET, ("127.0.0.1", 1751)), b"5a") == ["5a", "127.0.0.1:1751"]


def test_a_space_without_an_identity_is_named_after_the_server() -> None:
    assert space_names(Address(socket.AF_INET, ("127.0.0.1", 1751))) == ["127.0.0.1:1751"]
    assert space_names(Address(socket.AF_INET6, ("::1", 1751, 0, 0))) == ["[::1]:1751"]
    assert space_names(Address(socket.AF_UNIX, "lockerd")) == [f"{os.getcwd()}/lockerd"]
    assert space_names(Address(socket.AF_UNIX, b"\0lockerd")) == ["@lockerd"]
