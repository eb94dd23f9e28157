"""A lockerd whose etcd can't be used: one clear line and exit code 74; it waits for one that is not there yet."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest import mock

import pytest

from ipclocker.lock.storage.etcd_client import EtcdClient, EtcdSettings, EtcdUnusable
from ipclocker.lock.storage.http_exchange import AnswerReader

from ...support.etcd import Etcd, running_etcd
from ...support.shared_lockerd import SharedLockerd, run_lockerd, start_in_background
from ...support.waiting import DEADLINE, wait_for


def refusal(folder: Path, *words: str, code: int = 74) -> str:
    """The one line that is said by a lockerd that does not start."""
    done = run_lockerd("--port", "0", "--state-dir", str(folder / "state"), "--leader-ttl", "2", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
    assert done.stderr.startswith("lockerd: ")
    return done.stderr


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running_etcd(tmp_path_factory.mktemp("tls") / "e", tls=True) as etcd:
        yield etcd


# What is no etcd


class Answers(BaseHTTPRequestHandler):
    """An HTTP server that knows nothing but `versions`."""

    versions = b""

    def do_GET(self) -> None:
        self._answer(200 if self.versions else 404, self.versions)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(404, b"no such page")

    def _answer(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def http_server(versions: bytes = b"") -> Iterator[str]:
    handler = type("Handler", (Answers,), {"versions": versions})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(DEADLINE)


def test_a_web_server(tmp_path: Path) -> None:
    with http_server() as url:
        said = refusal(tmp_path, "--etcd", url)
    assert f"{url} is no etcd: it answers with status 404, and not as etcd does" in said


def test_an_etcd_that_is_too_old(tmp_path: Path) -> None:
    with http_server(b'{"etcdserver":"3.3.27","etcdcluster":"3.3.0"}') as url:
        said = refusal(tmp_path, "--etcd", url)
    assert f"{url} is an etcd of version 3.3.27, which is too old: version 3.4 is the oldest for this" in said


def test_an_etcd_without_its_gateway(tmp_path: Path) -> None:
    with http_server(b'{"etcdserver":"3.5.9","etcdcluster":"3.5.0"}') as url:
        assert "is its gRPC gateway on?" in refusal(tmp_path, "--etcd", url)


def test_a_server_of_another_protocol(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = sock.accept()
                    client.sendall(b"220 mail.example.org ESMTP\r\n")
                    client.close()

        thread = threading.Thread(target=greet)
        thread.start()
        try:
            said = refusal(tmp_path, "--etcd", f"http://127.0.0.1:{sock.getsockname()[1]}")
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)
    assert "is no etcd, since it does not speak HTTP: it says '220 mail.example.org ESMTP" in said


# Certificates


def test_tls_that_is_not_spoken_or_is_not_there(tls: Etcd, etcd: Etcd, tmp_path: Path) -> None:
    url = tls.urls[0].replace("https", "http")
    assert f"{url} can't be asked without TLS: write https://" in refusal(tmp_path, "--etcd", url)
    url = etcd.urls[0].replace("http", "https")
    assert f"{url} can't be spoken to by TLS: write http://" in refusal(tmp_path, "--etcd", url)


def test_a_certificate_that_is_not_trusted(tls: Etcd, tmp_path: Path) -> None:
    said = refusal(tmp_path, "--etcd", tls.urls[0])
    assert f"{tls.urls[0]} has a certificate that is not trusted (" in said and "--etcd-cacert" in said


def test_a_certificate_file_that_is_none(tls: Etcd, tmp_path: Path) -> None:
    for file, reason in ((tmp_path / "missing", "No such file"), (Path(__file__), "")):
        said = refusal(tmp_path, "--etcd", tls.urls[0], "--etcd-cacert", str(file))
        assert f"the certificate {file}, for etcd, can't be used: {reason}" in said


def test_client_certificates_that_are_wanted(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "e", tls=True, client_certificates=True) as etcd:
        certificates = etcd.certificates
        assert certificates is not None
        trust = ["--etcd", etcd.urls[0], "--etcd-cacert", str(certificates.authority)]
        said = refusal(tmp_path, *trust)
        assert f"{etcd.urls[0]} wants a certificate of ours (" in said and "give --etcd-cert and --etcd-key" in said
        client = EtcdClient(EtcdSettings(tuple(etcd.urls), cacert=str(certificates.authority)))
        for lost in (ConnectionResetError(), BrokenPipeError(), ssl.SSLEOFError()):  # what etcd said came too late
            is_lost = mock.patch.object(AnswerReader, "read", side_effect=lost)
            with is_lost, pytest.raises(EtcdUnusable, match="wants a certificate of ours"):
                client.call("kv/range", {"key": "YQ=="}, time.monotonic() + DEADLINE)
        (tmp_path / "other").mkdir()
        other = type(certificates)(tmp_path / "other" / "authority").issue("client")
        said = refusal(tmp_path, *trust, "--etcd-cert", str(other[0]), "--etcd-key", str(other[1]))
        assert f"{etcd.urls[0]} does not accept our certificate (" in said and "see --etcd-cert" in said
        own = certificates.issue("client")
        words = [*trust, "--etcd-cert", str(own[0]), "--etcd-key", str(own[1])]
        with SharedLockerd(etcd, tmp_path / "s", *words[2:]).serves() as shared:
            assert shared.ask("user u; locks a; LOCK")[0] == "owner u"


# Users


def test_users_and_passwords(tmp_path: Path) -> None:
    password = tmp_path / "password"
    with running_etcd(tmp_path / "e") as etcd:
        etcd.require_users(lockerd=("secret", "ipclocker/"))
        url = ["--etcd", etcd.urls[0]]
        user = [*url, "--etcd-user", "lockerd", "--etcd-password-file", str(password)]
        assert "wants a user: give --etcd-user and --etcd-password-file" in refusal(tmp_path, *url)
        assert f"the file {password} with etcd's password can't be read: No such" in refusal(tmp_path, *user)
        password.write_text("wrong\n")
        said = refusal(tmp_path, *user)
        assert f"does not let the user 'lockerd' in with the password in {password}" in said
        password.write_text("secret\n")
        said = refusal(tmp_path, *user, "--etcd-prefix", "other/")
        assert "under other/ can't be used" in said and "permission denied" in said
        with SharedLockerd(etcd, tmp_path / "s", *user[2:]).serves() as shared:
            assert shared.ask("user u; locks a; LOCK")[0] == "owner u"


# What stands under the prefix


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"format": "3"}, "are of format 3, and this lockerd knows 2: use a newer lockerd"),
        ({"format": "x"}, "the key 'ipclocker/format' in etcd at .* can't be read .*etcdctl"),
        ({"format": "1", "counter": "1 2"}, "the key 'ipclocker/counter' in etcd at .* can't be read .*etcdctl"),
        ({"format": "1", "space": "a b"}, "the key 'ipclocker/space' in etcd at .* can't be read .*etcdctl"),
        ({"format": "1", "counter": "1 2 3"}, "the key 'ipclocker/space' in etcd at .* is gone, .*put it back"),
        ({"format": "1", "lock/a/1": "{"}, "the key 'ipclocker/lock/a/1' in etcd at .* can't be read .*etcdctl"),
        ({"format": "1", "lock/a%/1": '{"user":"u"}'}, "the key 'ipclocker/lock/a%/1' in etcd .* can't be read .*name"),
        ({"other": "1"}, "there is something else already .'ipclocker/other'.: choose another one with --etcd-prefix"),
        ({"import": "x.db"}, "was not finished .x.db.: run lockerd --import again"),
    ],
)
def test_keys_that_it_can_not_use(etcd: Etcd, tmp_path: Path, keys: dict[str, str], said: str) -> None:
    for key, value in keys.items():
        etcd.put(f"ipclocker/{key}", value)
    assert re.search(said, refusal(tmp_path, "--etcd", etcd.urls[0]))
    left = {key for key in etcd.keys("ipclocker/") if not key.endswith(("/counter", "/space"))}
    assert left - {"ipclocker/format"} == {f"ipclocker/{key}" for key in keys} - {
        "ipclocker/format", "ipclocker/counter", "ipclocker/space",
    }  # fmt: skip
    for key, value in keys.items():
        if key != "counter":
            assert etcd.keys(f"ipclocker/{key}")[f"ipclocker/{key}"] == value, "it is left as it was"


def test_a_newer_format_is_refused_by_one_that_would_stand_by(etcd: Etcd, tmp_path: Path) -> None:
    """A newer lockerd leads."""
    etcd.put("ipclocker/format", "3")
    etcd.put("ipclocker/leader", json.dumps({"host": "newer", "addresses": []}))
    assert "are of format 3" in refusal(tmp_path, "--etcd", etcd.urls[0])
    assert etcd.keys("ipclocker/member/") == {}


def test_a_prefix_within_anothers(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put("farm/format", "1")
    said = refusal(tmp_path, "--etcd", etcd.urls[0], "--etcd-prefix", "farm/a")
    assert "under farm/a/ is within another one's prefix ('farm/format' is there): choose another one" in said
    etcd.delete("farm/")
    etcd.put("farm/a/format", "1")
    said = refusal(tmp_path, "--etcd", etcd.urls[0], "--etcd-prefix", "farm")
    assert "there is something else already ('farm/a/format')" in said


# Options


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--etcd", "db1"], "'db1' is no URL of etcd: write http://HOST:PORT"),
        (["--etcd", ""], "'' is no URL of etcd"),
        (["--etcd", "http://h:70000"], "'http://h:70000' is no URL of etcd"),
        (["--etcd", "http://h", "--etcd-prefix", "a b"], "the prefix of etcd's keys 'a b'"),
        (["--etcd", "http://h", "--etcd-cacert", "x"], "certificates are for https"),
        (["--etcd", "https://h", "--etcd-key", "/k"], "--etcd-key '/k' is of no use without --etcd-cert"),
        (["--etcd", "http://h", "--etcd-user", "u"], "--etcd-user 'u' is of no use without --etcd-password-file"),
        (["--etcd", "http://h", "--path", "/tmp/s"], "UNIX socket '/tmp/s' can't be used with etcd"),
        (["--etcd", "http://h", "--leader-ttl", "1"], "--leader-ttl"),
        (["--etcd", "http://h", "--leader-ttl", "3601"], "--leader-ttl"),  # etcd takes some, and then nobody serves
        (["--leader-ttl", "5"], "--leader-ttl '5' is of no use without --etcd"),
        (["--etcd-user", "u"], "--etcd-user 'u' is of no use without --etcd"),
    ],
)
def test_options_that_mean_nothing(tmp_path: Path, words: list[str], said: str) -> None:
    done = run_lockerd("--state-dir", str(tmp_path), *words)
    assert (done.returncode, done.stdout) == (64, "")
    assert said in done.stderr and "Traceback" not in done.stderr


# One that is not there yet


def test_an_etcd_that_is_not_there_yet_is_waited_for(etcd: Etcd, tmp_path: Path) -> None:
    [member] = etcd.members
    member.kill()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE)
        with SharedLockerd(etcd, tmp_path / "s", notify=str(tmp_path / "notify")) as shared:
            shared.says("waits for etcd: etcd gave no answer in time")
            heard = b""
            while b"STATUS=waits for etcd" not in heard:
                heard += manager.recv(4096) + b"\n"
            assert b"EXTEND_TIMEOUT_USEC=" in heard and b"READY=1" not in heard
            member.start()
            while b"READY=1" not in heard:
                heard += manager.recv(4096) + b"\n"
            shared.serves()
            assert shared.log().count("waits for etcd") == 1, "it says so once"


def test_one_that_waits_can_be_ended(tmp_path: Path) -> None:
    with SharedLockerd("http://127.0.0.1:1", tmp_path / "s") as shared:
        shared.says("waits for etcd")
        assert shared.terminate() == 0


def test_in_the_background_it_is_started_when_it_serves(etcd: Etcd, tmp_path: Path) -> None:
    [member] = etcd.members
    member.kill()
    pid_file = tmp_path / "pid"
    with start_in_background(etcd, tmp_path / "s", "--pid-file", str(pid_file)) as launcher:
        wait_for(lambda: "waits for etcd" in (tmp_path / "s" / "log").read_text(), "it to wait")
        assert launcher.poll() is None
        assert launcher.stderr is not None
        line = launcher.stderr.readline().decode()
        assert line.startswith("lockerd: it is not ready yet") and str(tmp_path / "s" / "log") in line
        member.start()
        assert launcher.wait(DEADLINE) == 0
        wait_for(lambda: "serves the lock space" in (tmp_path / "s" / "log").read_text(), "it to serve")
        subprocess.run(["kill", f"-{int(signal.SIGTERM)}", pid_file.read_text().strip()], check=True)
        wait_for(lambda: not pid_file.exists(), "it to be gone")
