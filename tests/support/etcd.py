"""Real etcd members on this host: started, killed, stopped, started again, asked, and surely ended."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest

from .processes import state
from .waiting import DEADLINE, wait_for

# A quick cluster, which yet bears a busy machine. The shortest lease that etcd grants is 1.5 election timeouts: 1 s.
_QUICK = ("--heartbeat-interval", "50", "--election-timeout", "500", "--unsafe-no-fsync")
_QUIET = ("--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr")
_PORTS = range(12_000, 32_000)  # below those that connections get, so that a member finds its own again
_ROOT = ("root", "the password of root")


class Certificates:
    """An authority of its own in a folder, and what it has signed for loopback addresses: NAME.crt and NAME.key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.authority = folder / "ca.crt"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-days", "2", "-subj", "/CN=authority of a test"),
            *("-keyout", str(folder / "ca.key"), "-out", str(self.authority)),
        )

    def issue(self, name: str, days: int = 2, subject: str = "/O=test", also: str = "") -> tuple[Path, Path]:
        """Sign a new certificate, in the place of an older one of this name; it and its key.

        `also` has further addresses, like `,IP:10.0.0.1`. The subject has no common name: with one, etcd's gateway
        refuses to act for users.
        """
        certificate, key, request, extensions = (
            self.folder / f"{name}.{end}" for end in ("crt", "key", "request", "extensions")
        )
        extensions.write_text(f"subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1{also}\n")
        _openssl("req", *_NEW_KEY, "-subj", subject, "-keyout", str(key), "-out", str(request))
        _openssl(
            *("x509", "-req", "-in", str(request), "-days", str(days), "-CA", str(self.authority)),
            *("-CAkey", str(self.folder / "ca.key"), "-CAcreateserial"),
            *("-extfile", str(extensions), "-out", str(certificate)),
        )
        return certificate, key


class Member:
    """One member of a cluster; its log is in `folder`/etcd.log, its data in `folder`/data."""

    def __init__(self, name: str, address: str, folder: Path, tls: bool, before: Sequence[str]) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self.port, peer_port = _free_ports(address)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://{address}:{self.port}"
        self.peer_url = f"http://{address}:{peer_port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._before = before
        self._options: list[str] = []
        folder.mkdir()

    def configure(self, *options: str) -> None:
        """Set what `start` gives to etcd beside the addresses."""
        self._options = list(options)

    def start(self) -> None:
        """Start it, with the data that it has; whether it is healthy is another question."""
        assert self.process is None, f"{self.name} runs already"
        command = [
            *(*self._before, "etcd", "--name", self.name, "--data-dir", str(self.folder / "data")),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
            *self._options,
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        with open(self.folder / "etcd.log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it by a signal, and wait until it is gone; nothing if it was not started."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(DEADLINE)
            finally:
                process.kill()
                process.wait()

    def restart(self) -> None:
        """Kill it, and start it again."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Let it stand still, as SIGSTOP does; its kernel still accepts connections."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        pid = self.process.pid
        wait_for(lambda: state(pid) == "T", f"{self.name} to stand still")

    def go_on(self) -> None:
        """Let it run again after `stop`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def has_ended(self) -> bool:
        """True if it was started and ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "etcd.log").read_text()


class Etcd:
    """A cluster of real members; each method may be told which one to ask, by its number."""

    def __init__(self, members: Sequence[Member], certificates: Certificates | None, client_certificates: bool) -> None:
        self.members = list(members)
        self.certificates = certificates
        self.user: tuple[str, str] | None = None  # whom `call` and `ctl` speak for
        self.inside: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext  # around each request
        self._token = ""
        self._context: ssl.SSLContext | None = None
        self._tls_options: list[str] = []
        if certificates is not None:
            self._context = ssl.create_default_context(cafile=str(certificates.authority))
            self._context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # ours lack a key identifier, as many do
            self._tls_options = ["--cacert", str(certificates.authority)]
            if client_certificates:
                certificate, key = certificates.issue("client")
                self._context.load_cert_chain(certificate, key)
                self._tls_options += ["--cert", str(certificate), "--key", str(key)]

    @property
    def urls(self) -> list[str]:
        """Where clients reach the members."""
        return [member.url for member in self.members]

    def kill(self) -> None:
        """Kill all members."""
        for member in self.members:
            member.kill()

    def restart(self) -> None:
        """Kill all members, start them again and wait until they are healthy."""
        self.kill()
        for member in self.members:
            member.start()
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Wait until each member that was started takes part in a quorum."""
        for number, member in enumerate(self.members):
            if member.process is not None:
                wait_for(partial(self._is_healthy_or_ended, number), f"{member.name} to be healthy")
                assert not member.has_ended(), f"{member.name} ended: {member.log()[-2000:]}"

    def _is_healthy_or_ended(self, number: int) -> bool:
        return self.is_healthy(number) or self.members[number].has_ended()

    def is_healthy(self, number: int = 0) -> bool:
        """True if a member says that it takes part in a quorum."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            return bool(json.loads(self._request(number, "GET", "/health", None, 2)[1])["health"] == "true")
        return False

    def leader(self) -> Member:
        """The member that leads etcd itself; one has to."""

        def find() -> Member | None:
            for number, member in enumerate(self.members):
                with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                    answer = self.call("maintenance/status", {}, number)
                    if member.process is not None and answer.get("leader") == answer["header"]["member_id"]:
                        return member
            return None

        return wait_for(find, "etcd to have a leader")  # type: ignore[return-value]

    def call(self, path: str, body: Mapping[str, Any], number: int = 0) -> dict[str, Any]:
        """One answer of the JSON gateway, as curl gets it; an AssertionError for a refusal."""
        if self.user is not None and not self._token:
            self._log_in(self.user, number)
        status, answer = self._request(number, "POST", f"/v3/{path}", body, DEADLINE)
        if status == 401 and self.user is not None:  # the token has ended
            self._log_in(self.user, number)
            status, answer = self._request(number, "POST", f"/v3/{path}", body, DEADLINE)
        assert status == 200, answer
        return json.loads(answer)  # type: ignore[no-any-return]

    def keys(self, prefix: str = "", number: int = 0) -> dict[str, str]:
        """All keys that begin so, with their values."""
        return {
            base64.b64decode(found["key"]).decode(): base64.b64decode(found.get("value", "")).decode()
            for found in self.entries(prefix, number)
        }

    def entries(self, prefix: str = "", number: int = 0) -> list[dict[str, Any]]:
        """All keys that begin so, as etcd tells them: key and value in base64, revisions, lease."""
        start = prefix.encode() or b"\0"
        end = start[:-1] + bytes([start[-1] + 1]) if prefix else b"\0"
        found = self.call("kv/range", {"key": _base64(start), "range_end": _base64(end)}, number)
        return found.get("kvs", [])  # type: ignore[no-any-return]

    def put(self, key: str, value: str, number: int = 0) -> None:
        """Write one key."""
        self.call("kv/put", {"key": _base64(key.encode()), "value": _base64(value.encode())}, number)

    def delete(self, prefix: str, number: int = 0) -> None:
        """Delete all keys that begin so."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        self.call("kv/deleterange", {"key": _base64(prefix.encode()), "range_end": _base64(end.encode())}, number)

    def clear(self) -> None:
        """Delete all keys."""
        everything = _base64(b"\0")
        self.call("kv/deleterange", {"key": everything, "range_end": everything})

    def leases(self, number: int = 0) -> list[str]:
        """The numbers of all leases."""
        return [lease["ID"] for lease in self.call("lease/leases", {}, number).get("leases", [])]

    def revoke(self, lease: str, number: int = 0) -> None:
        """Revoke a lease, as anybody may who reaches etcd."""
        self.call("lease/revoke", {"ID": lease}, number)

    def ctl(self, *arguments: str) -> str:
        """What etcdctl prints; an AssertionError if it fails."""
        command = ["etcdctl", "--endpoints", ",".join(self.urls), *self._tls_options]
        if self.user is not None:
            command += ["--user", ":".join(self.user)]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, f"etcdctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def require_users(self, **roles: tuple[str, str]) -> None:
        """Let nobody in without a password from now on; for each name its password, and the prefix that it may use."""
        self.ctl("user", "add", ":".join(_ROOT))
        self.ctl("user", "grant-role", "root", "root")
        for name, (password, prefix) in roles.items():
            self.ctl("user", "add", f"{name}:{password}")
            self.ctl("role", "add", name)
            self.ctl("role", "grant-permission", name, "readwrite", "--prefix=true", prefix)
            self.ctl("user", "grant-role", name, name)
        self.ctl("auth", "enable")
        self.user = _ROOT

    def _log_in(self, user: tuple[str, str], number: int) -> None:
        self._token = ""  # etcd refuses even this call with one that has ended
        login = {"name": user[0], "password": user[1]}
        status, answer = self._request(number, "POST", "/v3/auth/authenticate", login, DEADLINE)
        assert status == 200, answer
        self._token = json.loads(answer)["token"]

    def _request(
        self, number: int, method: str, path: str, body: Mapping[str, Any] | None, timeout: float
    ) -> tuple[int, str]:
        member = self.members[number]
        connection = (
            http.client.HTTPConnection(member.address, member.port, timeout=timeout)
            if self._context is None
            else http.client.HTTPSConnection(member.address, member.port, timeout=timeout, context=self._context)
        )
        with self.inside(), contextlib.closing(connection):
            headers = {"Authorization": self._token} if self._token else {}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read().decode()


@contextlib.contextmanager
def running_etcd(
    folder: Path,
    members: int = 1,
    *options: str,
    tls: bool = False,
    client_certificates: bool = False,
    addresses: Sequence[str] = (),
    before: Sequence[Sequence[str]] = (),
    inside: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    quick: bool = True,
) -> Iterator[Etcd]:
    """A healthy cluster of that many members; all of it is ended at the end of the `with`. Skips without an etcd.

    `folder` is made; `options` are further ones of etcd's; `client_certificates` have to be shown, with `tls`.
    `addresses` are 127.0.0.1 else; `before` is put before each member's command, as `ip netns exec NAME`; `inside` is
    where they can be reached from, if not from here. Without `quick` members have etcd's usual times and flush what
    they write to disk.
    """
    if shutil.which("etcd") is None:
        pytest.skip("this host has no etcd")
    folder.mkdir(parents=True, exist_ok=True)
    certificates = Certificates(folder / "certificates") if tls else None
    tls_options: list[str] = []
    if certificates is not None:
        certificate, key = certificates.issue("server", also="".join(f",IP:{address}" for address in addresses))
        tls_options = ["--cert-file", str(certificate), "--key-file", str(key)]
        if client_certificates:
            tls_options += ["--client-cert-auth", "--trusted-ca-file", str(certificates.authority)]
    for attempt in range(5):
        cluster = Etcd(
            [
                Member(
                    f"m{number}",
                    addresses[number] if addresses else "127.0.0.1",
                    folder / f"{attempt}.m{number}",
                    tls,
                    before[number] if before else (),
                )
                for number in range(members)
            ],
            certificates,
            client_certificates,
        )
        cluster.inside = inside
        peers = ",".join(f"{member.name}={member.peer_url}" for member in cluster.members)
        for member in cluster.members:
            member.configure("--initial-cluster", peers, *(_QUICK if quick else ()), *_QUIET, *tls_options, *options)
        try:
            for member in cluster.members:
                member.start()
            try:
                cluster.wait_until_healthy()
            except AssertionError as problem:
                if "address already in use" not in str(problem):
                    raise
                continue  # another program took a port since we looked
            yield cluster
            return
        except BaseException:
            for member in cluster.members:
                print(f"{member.name}: {member.log()[-2000:]}", file=sys.stderr)
            raise
        finally:
            cluster.kill()
    raise AssertionError("no free ports for etcd")


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _free_ports(address: str) -> tuple[int, int]:
    """Two ports that nobody listens on; an address of another network namespace can't be looked at from here."""
    found: list[int] = []
    while len(found) < 2:
        port = random.choice(_PORTS)
        with socket.socket() as sock:
            try:
                sock.bind((address, port))
            except OSError:
                if address.startswith("127."):
                    continue
        found.append(port)
    return found[0], found[1]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
