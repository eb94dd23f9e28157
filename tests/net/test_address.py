"""Hosts and ports as people write them."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ipclocker.errors import ServerUnavailable, UsageError
from ipclocker.lock.endpoint import endpoint
from ipclocker.net.address import (
    Address,
    Host,
    find_addresses,
    is_socket_path,
    own_host_name,
    port_number,
    service_port,
    socket_path,
    split_hosts,
)
from ipclocker.pid.endpoint import pid_endpoint


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("one", [("one", None)]),
        ("one:two.example:three", [("one", None), ("two.example", None), ("three", None)]),
        ("[::1]", [("::1", None)]),
        ("a:[fe80::1%lo]:10.0.0.1", [("a", None), ("fe80::1%lo", None), ("10.0.0.1", None)]),
        ("[one]:1760", [("one", 1760)]),
        ("a:[b]:1:[::1]:65535:[c]:d", [("a", None), ("b", 1), ("::1", 65535), ("c", None), ("d", None)]),
    ],
)
def test_host_lists(text: str, hosts: list[tuple[str, int | None]]) -> None:
    assert split_hosts(text) == hosts
    assert split_hosts(":".join(str(Host(*host)) for host in hosts)) == hosts


@pytest.mark.parametrize("text", ["host:1751", "1751", "a:1751:b", "[a]:1:2", "[1751]"])
def test_a_number_in_a_host_list_is_a_port_in_the_wrong_place(text: str) -> None:
    with pytest.raises(UsageError, match=r"is a number, not a host: give the port by --port, or write \[HOST\]:PORT"):
        split_hosts(text)


@pytest.mark.parametrize("text", ["[a]:0", "[a]:65536", "[a]:" + "9" * 5000])
def test_a_port_in_a_host_list_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="not a number from 1 to 65535"):
        split_hosts(text)


@pytest.mark.parametrize("text", [":", "a:", ":a", "a::b", "::1", "[::1", "a]", "[a][b]", "[]", "a[b]"])
def test_host_lists_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="brackets"):
        split_hosts(text)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1751", 1751), ("65535", 65535)])
def test_port_numbers(text: str, number: int) -> None:
    assert port_number(text, "tcp") == number


@pytest.mark.parametrize("text", ["", "65536", "-1", "1.5", "no-such-service", "\u00b2", "\udcff", "a" * 100])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="port"):
        port_number(text, "tcp")


def test_services(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(name: str, protocol: str) -> int:
        if (name, protocol) != ("lockerd", "tcp"):
            raise OSError("not found")
        return 4711

    monkeypatch.setattr(socket, "getservbyname", look_up)
    assert port_number("lockerd", "tcp") == 4711
    assert endpoint("lockerd").port == 4711
    assert service_port("lockerd", "tcp", 1751) == 4711
    assert service_port("lockerd", "udp", 1752) == 1752


def test_our_services_have_their_ports_without_an_entry_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(name: str, protocol: str) -> int:
        raise OSError("not found")

    monkeypatch.setattr(socket, "getservbyname", look_up)
    assert endpoint("lockerd").port == 1751 and pid_endpoint("pidstatd").port == 1752
    monkeypatch.setenv("IPCLOCKER_PORT", "lockerd")
    assert endpoint().port == 1751
    for wrong in (lambda: endpoint("pidstatd"), lambda: pid_endpoint("lockerd"), lambda: endpoint("other")):
        with pytest.raises(UsageError, match=r"nor a (tcp|udp) service"):
            wrong()


def test_loopback_names_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    original = socket.getaddrinfo

    def numbers_only(host: str, port: int, **more: Any) -> object:
        assert more["flags"] & socket.AI_NUMERICHOST or host[0].isdigit()
        return original(host, port, **more)

    monkeypatch.setattr(socket, "getaddrinfo", numbers_only)
    for host in ("localhost", ""):
        assert [str(address) for address in find_addresses(host, 7, socket.SOCK_STREAM)] == ["127.0.0.1:7", "[::1]:7"]
    assert [str(address) for address in find_addresses("10.1.2.3", 7, socket.SOCK_STREAM)] == ["10.1.2.3:7"]


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 300, "a b", "\udcff"])
def test_a_host_that_is_not_known(host: str) -> None:
    with pytest.raises(ServerUnavailable, match="not known"):
        find_addresses(host, 1, socket.SOCK_STREAM)


def test_socket_paths() -> None:
    assert socket_path("/run/x") == Address(socket.AF_UNIX, "/run/x")
    assert str(socket_path("/run/x")) == "/run/x"
    assert is_socket_path("./x") and not is_socket_path("1751") and not is_socket_path("lockerd")
    for path in ("", "a\0b", "x" * 104, "\u00e9" * 52):
        with pytest.raises(UsageError, match="choose another"):
            socket_path(path)


@pytest.mark.parametrize(("name", "known_as"), [("h", "h"), ("", "localhost"), ("(none)", "localhost"), ("a b", "ab")])
def test_the_own_name(name: str, known_as: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert own_host_name() == known_as
