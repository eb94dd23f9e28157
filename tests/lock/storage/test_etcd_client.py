"""The client of etcd: some member's definite answer, or why there is none, and what may have been done all the same."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipclocker.errors import StateError
from ipclocker.lock.storage.etcd_client import (
    INVALID_ARGUMENT,
    EtcdClient,
    EtcdRefused,
    EtcdSettings,
    EtcdUnavailable,
    EtcdUnusable,
)

from ...support.etcd import Etcd, running_etcd
from ...support.etcd_gateway import (
    TIMED_OUT,
    Answer,
    Exchange,
    Gateway,
    cuts_off_the_answer,
    error,
    loses_the_answer,
    loses_the_request,
    says,
)
from ...support.waiting import DEADLINE, wait_for

CLIENTS: list[EtcdClient] = []


def soon() -> float:
    """A deadline for what is not to be answered."""
    return time.monotonic() + 1.5


def later() -> float:
    """A deadline for what is to be answered."""
    return time.monotonic() + DEADLINE


def text(word: str) -> str:
    return base64.b64encode(word.encode()).decode()


def put(client: EtcdClient, key: str, value: str, deadline: float | None = None) -> dict[str, Any]:
    operation = {"request_put": {"key": text(key), "value": text(value)}}
    return client.call("kv/txn", {"success": [operation]}, later() if deadline is None else deadline)


def get(client: EtcdClient, key: str) -> str:
    (found,) = client.call("kv/range", {"key": text(key)}, later())["kvs"]
    return base64.b64decode(found["value"]).decode()


def client_of(*urls: str, **others: str | None) -> EtcdClient:
    client = EtcdClient(EtcdSettings(urls, **others))  # type: ignore[arg-type]
    CLIENTS.append(client)
    return client


@pytest.fixture(autouse=True)
def _clients_are_closed() -> Iterator[None]:
    yield
    while CLIENTS:
        CLIENTS.pop().close()


@pytest.fixture
def gateway(etcd: Etcd) -> Iterator[Gateway]:
    with Gateway(etcd.members[0].port).running() as gateway:
        yield gateway


def test_what_is_written_can_be_read(etcd: Etcd) -> None:
    client = client_of(*etcd.urls)
    put(client, "a", "1")
    assert get(client, "a") == "1" == etcd.keys("a")["a"]
    client.close()
    assert get(client, "a") == "1"  # it connects again
    assert client.location == etcd.members[0].url


def test_a_refusal_has_its_code_and_says_that_nothing_was_done(etcd: Etcd) -> None:
    operation = {"request_put": {"key": text("twice"), "value": ""}}
    with pytest.raises(EtcdRefused, match=f"etcd at {etcd.members[0].url} refused .*: .*duplicate key") as caught:
        client_of(*etcd.urls).call("kv/txn", {"success": [operation] * 2}, later())
    assert (caught.value.code, caught.value.maybe_applied) == (INVALID_ARGUMENT, False)
    assert not etcd.keys("twice")


def test_a_stream_of_one_answer_is_read(etcd: Etcd) -> None:
    client = client_of(*etcd.urls)
    lease = client.call("lease/grant", {"TTL": "60"}, later())["ID"]
    assert client.call("lease/keepalive", {"ID": lease}, later())["result"]["TTL"] == "60"
    assert client.call("maintenance/alarm", {"action": "GET"}, later()).get("alarms", []) == []


def test_where_nobody_listens_the_next_member_is_asked_and_at_the_deadline_it_is_said(etcd: Etcd) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        assert put(client_of(url, *etcd.urls), "b", "1")["succeeded"]
        with pytest.raises(EtcdUnavailable, match=f"{url}: Connection refused") as caught:
            put(client_of(url), "b", "2", soon())
        assert not caught.value.maybe_applied
        with pytest.raises(EtcdUnavailable, match="no time left"):
            put(client_of(*etcd.urls), "b", "3", time.monotonic() - 1)
    assert etcd.keys("b")["b"] == "1"


def test_a_silent_member_does_not_use_up_the_time_of_the_others(etcd: Etcd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = client_of(url, *etcd.urls)
        put(client, "c", "1", time.monotonic() + 8)
        silent.close()
        put(client, "c", "2")  # of the one that has answered
    assert etcd.keys("c")["c"] == "2"


@pytest.mark.parametrize("behaviour", [loses_the_answer, cuts_off_the_answer, loses_the_request])
def test_what_stays_open_is_asked_again_and_said_to_be_open(gateway: Gateway, behaviour: Any) -> None:
    client = client_of(gateway.url)
    gateway.next_writes += [behaviour]
    assert put(client, "d", "1")["succeeded"]
    assert len(gateway.writes) == 2
    gateway.next_writes += [behaviour, lambda exchange: error(400, INVALID_ARGUMENT, "no")]
    with pytest.raises(EtcdRefused) as refused:
        put(client, "d", "2")
    assert refused.value.maybe_applied
    gateway.next_writes += [behaviour] * 1000
    with pytest.raises(EtcdUnavailable) as unavailable:
        put(client, "d", "3", soon())
    assert unavailable.value.maybe_applied


def test_a_kept_connection_that_was_closed_meanwhile_leaves_nothing_open(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd") as etcd:
        client = client_of(*etcd.urls)
        put(client, "e", "1")
        etcd.kill()
        with pytest.raises(EtcdUnavailable) as caught:
            put(client, "e", "2", soon())
        assert not caught.value.maybe_applied
        etcd.restart()
        assert get(client, "e") == "1"


def test_three_members_of_which_one_is_killed_or_silent_serve_on(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd", 3) as etcd:
        client = client_of(*etcd.urls)
        for number, member in enumerate(etcd.members):
            put(client, "f", f"{number}")
            if number == 2:
                member.stop()  # its kernel still accepts connections
            else:
                member.kill()
            put(client, "f", f"{number} without it")
            assert get(client, "f") == f"{number} without it"
            if number == 2:
                member.go_on()
            else:
                member.start()
            etcd.wait_until_healthy()


def test_the_member_that_leads_is_preferred_and_after_its_end_the_next_one(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd", 3) as etcd, contextlib.ExitStack() as stack:
        first = etcd.leader()
        members = sorted(etcd.members, key=lambda member: member is first)  # it is the last one of the list
        gateways = [stack.enter_context(Gateway(member.port).running()) for member in members]
        client = client_of(*(gateway.url for gateway in gateways))

        def write() -> int:
            """Return the number of the member that was asked."""
            before = [len(gateway.writes) for gateway in gateways]
            put(client, "k", "1")
            (asked,) = (n for n, gateway in enumerate(gateways) if len(gateway.writes) > before[n])
            return asked

        assert write() == 0
        client.prefer_leader(later())
        assert write() == 2
        client.prefer_leader(later())
        assert write() == 2
        first.kill()
        etcd.leader()
        put(client, "k", "2")  # of any one
        second = etcd.leader()
        client.prefer_leader(later())
        assert members[write()] is second is etcd.leader()


def member_that_says(number: str, asked: list[str], status: Answer, answer: Answer) -> Any:
    """One that notes its number in `asked` when it is asked anything but its status."""

    def behaviour(exchange: Exchange) -> Answer:
        if exchange.path == "/v3/maintenance/status":
            return status
        asked.append(number)
        return answer

    return behaviour


DONE = (200, b'{"header":{},"succeeded":true}')


def test_a_leader_that_does_not_answer_here_is_left_alone_for_a_while() -> None:
    asked: list[str] = []
    one, two = ((200, b'{"header":{"member_id":"%d"},"leader":"2"}' % number) for number in (1, 2))
    with (
        Gateway(always=member_that_says("1", asked, one, DONE)).running() as follower,
        Gateway(always=member_that_says("2", asked, two, TIMED_OUT)).running() as leader,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        client = client_of(follower.url, f"http://127.0.0.1:{silent.getsockname()[1]}", leader.url)
        client.prefer_leader(time.monotonic() + 0.3)  # the silent one takes all of that
        client.prefer_leader(later())
        put(client, "k", "1")
        assert asked == ["2", "1"]
        client.prefer_leader(later())
        put(client, "k", "1")
        assert asked == ["2", "1", "1"]


def test_what_does_not_say_who_leads_is_asked_as_before() -> None:
    asked: list[str] = []
    for status in (error(403, 7, "no"), None, (200, b'{"header":{}}'), (200, b"<html>")):
        first = Gateway(always=member_that_says("1", asked, status, DONE))
        other = Gateway(always=member_that_says("2", asked, status, DONE))
        with first.running(), other.running():
            client = client_of(first.url, other.url)
            client.prefer_leader(later())
            put(client, "k", "1")
    assert asked.count("1") >= 4 and "2" not in asked


def test_without_quorum_nothing_is_answered_and_then_it_goes_on(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd", 3) as etcd:
        client = client_of(*etcd.urls)
        put(client, "g", "1")
        etcd.members[0].kill()
        etcd.members[1].kill()
        with pytest.raises(EtcdUnavailable):
            put(client, "g", "2", time.monotonic() + 3)
        etcd.restart()
        put(client, "g", "3")
        assert get(client, "g") == "3"


# What is no etcd that can be used


def answers(status: int, body: bytes, version: Answer = (404, b"404 page not found\n")) -> Any:
    def answer(exchange: Exchange) -> Answer:
        return version if exchange.path == "/version" else (status, body)

    return answer


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (answers(200, b"<html>welcome</html>"), "is no etcd: it answers with status 200"),
        (answers(200, b""), "is no etcd: it answers with status 200"),
        (answers(200, b"[]"), "is no etcd"),
        (answers(200, b"{}"), "is no etcd"),
        (answers(200, b'{"kvs":[]}'), "is no etcd"),
        (answers(302, b""), "is no etcd: it answers with status 302"),
        (answers(404, b"{}"), "is no etcd: it answers with status 404"),
        (answers(501, b"<html>"), "is no etcd: it answers with status 501"),  # as a server of files does
        (answers(400, b"Client sent an HTTP request to an HTTPS server."), "without TLS: write https://"),
        (answers(404, b"404", (200, b'{"etcdserver":"3.3.27","etcdcluster":"3.3.0"}')), "version 3.3.27, .* too old"),
        (answers(404, b"404", (200, b'{"etcdserver":"2.3.8"}')), "version 2.3.8, .* too old"),
        (answers(404, b"404", (200, b'{"etcdserver":"3.4.1"}')), "does not answer JSON .* gateway on"),
        (answers(404, b"404", (200, b'{"etcdserver":"3.10.0-rc.0"}')), "does not answer JSON .* gateway on"),
    ],
)
def test_what_is_no_etcd_or_too_old_is_named_at_once(behaviour: Any, message: str) -> None:
    with Gateway(always=behaviour).running() as gateway:
        with pytest.raises(EtcdUnusable, match=f"{gateway.url} .*{message}") as caught:
            put(client_of(gateway.url), "h", "1")
        assert "\n" not in str(caught.value) and isinstance(caught.value, StateError)


def test_what_does_not_speak_http_is_named(etcd: Etcd) -> None:
    with (
        says(b"SSH-2.0-OpenSSH_9.2\r\n") as url,
        pytest.raises(EtcdUnusable, match=r"is no etcd, .*SSH-2\.0") as caught,
    ):
        put(client_of(url), "h", "1")
    assert url in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno",
    ],
)
def test_an_answer_that_is_cut_off_or_of_a_proxy_in_trouble_is_none(data: bytes) -> None:
    with says(data) as url, pytest.raises(EtcdUnavailable) as caught:
        put(client_of(url), "h", "1", soon())
    assert caught.value.maybe_applied


def test_one_member_that_is_no_etcd_is_passed_over_while_another_answers(
    etcd: Etcd, caplog: pytest.LogCaptureFixture
) -> None:
    with Gateway(always=answers(200, b"hello")).running() as other:
        client = client_of(other.url, *etcd.urls)
        put(client, "i", "1")
        client._current = 0  # as when the good one was away
        put(client, "i", "2")
        assert [record.getMessage() for record in caplog.records if "is no etcd" in record.getMessage()] == [
            f"{other.url} is no etcd: it answers with status 200, and not as etcd does"
        ]
        with Gateway(always=lambda exchange: TIMED_OUT).running() as slow, pytest.raises(EtcdUnusable, match="no etcd"):
            put(client_of(other.url, slow.url), "i", "3", soon())  # and nobody else has answered by then


# TLS


def test_certificates_are_checked_both_ways(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd", tls=True, client_certificates=True) as etcd:
        assert etcd.certificates is not None
        cert, key = (str(path) for path in etcd.certificates.issue("lockerd"))
        files = {"cacert": str(etcd.certificates.authority), "cert": cert, "key": key}
        (url,) = etcd.urls
        client = client_of(url, **files)
        put(client, "a", "1")
        good = Path(cert).read_bytes()
        Path(cert).write_text("no certificate")
        put(client, "a", "3")  # with what it had
        with pytest.raises(StateError, match=f"the certificate {cert} with the key {key}, for etcd, can't be used"):
            client_of(url, **files)
        Path(cert).write_bytes(good)
        with pytest.raises(EtcdUnusable, match=f"{url} has a certificate that is not trusted"):
            put(client_of(url), "a", "4")
        with pytest.raises(EtcdUnusable, match=f"{url} wants a certificate of ours"):
            put(client_of(url, cacert=files["cacert"]), "a", "4")
        with pytest.raises(EtcdUnusable, match=r"127\.1:\d+ has a certificate that is not trusted \(.*127\.1"):
            put(client_of(url.replace("127.0.0.1", "127.1"), **files), "a", "4")  # another name of the same address
        with pytest.raises(EtcdUnusable, match="can't be asked without TLS: write https://"):
            put(client_of(url.replace("https", "http")), "a", "4")
        assert get(client, "a") == "3"
        client.close()


def test_a_member_without_tls_that_is_asked_by_https_is_named(etcd: Etcd) -> None:
    """It hangs up, as one does that is just ending: so it is looked whether it speaks HTTP."""
    url = etcd.urls[0].replace("http", "https")
    with pytest.raises(EtcdUnusable, match=f"{url} can't be spoken to by TLS: write http://"):
        put(client_of(url), "a", "1")
    with says(b"HTTP/1.1 400 Bad Request\r\n\r\n") as other:
        url = other.replace("http", "https")
        with pytest.raises(EtcdUnusable, match=f"{url} can't be spoken to by TLS .*: is it http"):
            put(client_of(url), "a", "1")


def test_a_file_of_certificates_that_is_missing_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.crt")
    with pytest.raises(StateError, match=f"the certificate {missing}, for etcd, can't be used: No such file"):
        client_of("https://127.0.0.1", cacert=missing)


# Users


def with_users(etcd: Etcd, folder: Path) -> dict[str, str]:
    etcd.require_users(lockerd=("a password", "ipclocker/"))
    file = folder / "password"
    file.write_text("a password\n")
    return {"user": "lockerd", "password_file": str(file)}


def test_a_user_is_logged_in_and_again_when_the_token_has_ended(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd", 1, "--auth-token-ttl", "1") as etcd:
        user = with_users(etcd, tmp_path)
        client = client_of(*etcd.urls, **user)
        put(client, "ipclocker/a", "1")
        with pytest.raises(EtcdRefused, match="permission denied"):
            put(client, "other/a", "1")
        time.sleep(3)  # etcd looks each second which tokens have ended; more only makes it surer
        put(client, "ipclocker/a", "2")
        etcd.restart()  # this forgets all tokens
        put(client, "ipclocker/a", "3")
        assert etcd.keys("ipclocker/")["ipclocker/a"] == "3"


def test_wrong_and_missing_passwords_are_named_and_users_may_come_later(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd") as etcd:
        file = tmp_path / "password"
        file.write_text("a password")
        early = client_of(*etcd.urls, user="lockerd", password_file=str(file))
        put(early, "ipclocker/a", "1")  # etcd has no users yet
        user = with_users(etcd, tmp_path)
        put(early, "ipclocker/a", "2")
        url = etcd.urls[0]
        with pytest.raises(EtcdUnusable, match=f"{url} wants a user: give --etcd-user and --etcd-password-file"):
            put(client_of(url), "ipclocker/a", "3")
        file.write_text("wrong")
        with pytest.raises(EtcdUnusable, match=f"{url} does not let the user 'lockerd' in .* in {file}"):
            put(client_of(url, **user), "ipclocker/a", "3")
        file.write_bytes(b"\xff")
        with pytest.raises(StateError, match=f"the file {file} with etcd's password can't be read: it is not UTF-8"):
            client_of(url, **user)
        file.unlink()
        with pytest.raises(StateError, match=f"the file {file} with etcd's password can't be read: No such file"):
            client_of(url, **user)
        assert etcd.keys("ipclocker/")["ipclocker/a"] == "2"


def test_a_token_that_a_member_does_not_know_yet_is_no_refusal(etcd: Etcd, tmp_path: Path) -> None:
    """A member that lags behind answers so to a token that another one gave."""
    (tmp_path / "password").write_text("x")
    user = {"user": "lockerd", "password_file": str(tmp_path / "password")}

    def lags(exchange: Exchange) -> Answer:
        if exchange.path.endswith("authenticate"):
            return 200, b'{"header":{},"token":"t"}'
        if behind.requests > 10:
            return error(400, INVALID_ARGUMENT, "no")
        return error(401, 16, "etcdserver: invalid auth token")

    with Gateway(always=lags).running() as behind:
        assert put(client_of(behind.url, *etcd.urls, **user), "j", "1")["succeeded"]
        with pytest.raises(EtcdRefused, match="no") as caught:
            put(client_of(behind.url, **user), "j", "2")
        assert not caught.value.maybe_applied


def test_waiting_for_an_etcd_that_is_not_there_yet(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd") as etcd:
        etcd.kill()
        client = client_of(*etcd.urls)
        with pytest.raises(EtcdUnavailable):
            put(client, "a", "1", soon())
        etcd.members[0].start()
        wait_for(lambda: put(client, "a", "2")["succeeded"], "etcd to answer")
