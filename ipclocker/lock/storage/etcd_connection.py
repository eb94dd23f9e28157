"""One kept connection to one member of etcd: a request, its answer, and what it means if there is none."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING

from ...errors import StateError
from .etcd_settings import EtcdSettings, Member
from .http_exchange import AnswerReader, BadAnswer, HungUp, NoHttp, request

if TYPE_CHECKING:
    import ssl

_TLS_RECORDS = (b"\x15", b"\x16")  # what an answer to the greeting begins with: an alert, or a greeting
_LOOK_WITHIN = 2.0  # seconds; nearly always at a start, when nothing depends on this yet


class EtcdUnusable(StateError):
    """What answers is no etcd that can be used: another program, too old, a wrong password or certificate."""


class NoAnswer(Exception):
    """A request had no answer. `maybe_applied`: it may have been carried out, or may still be."""

    def __init__(self, reason: str, maybe_applied: bool) -> None:
        super().__init__(reason)
        self.maybe_applied = maybe_applied


def tls_context(settings: EtcdSettings) -> ssl.SSLContext | None:
    """Return how to speak TLS with these certificates, which are read now; None if no member wants it.

    Raises StateError.
    """
    if not any(member.tls for member in settings.members()):
        return None
    try:
        import ssl
    except ImportError as error:
        raise StateError(f"etcd can't be reached by https, since this Python has no TLS: {error}") from error
    file = settings.cacert
    try:
        context = ssl.create_default_context(cafile=file)
        # Set by default from Python 3.13 on: a new Python is not to refuse certificates that etcd itself takes, and
        # that an older one took, since they lack a key identifier.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if settings.cert is not None:
            file = settings.cert
            context.load_cert_chain(settings.cert, settings.key, password=lambda: "")  # never asked of a person
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else str(error)
        key = f" with the key {settings.key}" if file == settings.cert else ""
        raise StateError(f"the certificate {file}{key}, for etcd, can't be used: {reason}") from error
    return context


class Connection:
    """A connection that is made when it is needed, and kept. All times are monotonic, in seconds."""

    def __init__(self, member: Member, context: ssl.SSLContext | None, shows_certificate: bool = False) -> None:
        self.member = member
        self._context = context
        self._shows_certificate = shows_certificate
        self._host = _host_header(member)
        self._sock: socket.socket | None = None
        self._poll = select.poll()  # of that socket
        self._has_answered = False  # this member, so it is spoken to in the right way

    def ask(self, method: str, path: str, body: bytes | None, token: str, until: float) -> tuple[int, bytes]:
        """Send a request, and return the answer's status and body.

        Raises NoAnswer if there was none until then, EtcdUnusable if what answers is no etcd.
        """
        is_sent = False
        try:
            sock = self._connected(until)
            data = request(method, self._host, path, body, token)
            is_sent = True
            sock.sendall(data)
            reader = AnswerReader(sock, until)
            answer = reader.read()
        except (OSError, BadAnswer, UnicodeError) as error:
            self.close()
            raise self._explained(error, is_sent) from error
        except BaseException:
            self.close()
            raise
        if not reader.keeps:
            self.close()
        self._has_answered = True
        return answer

    def close(self) -> None:
        """Close it; the next request makes another one."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _connected(self, until: float) -> socket.socket:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("there was no time left")
        if self._sock is not None and self._poll.poll(0):  # it was closed: nothing that is asked for is on its way
            self.close()
        if self._sock is None:
            self._sock = self._connect(left)
            self._poll = select.poll()
            self._poll.register(self._sock, select.POLLIN)
            left = until - time.monotonic()
        self._sock.settimeout(max(left, 0.001))
        return self._sock

    def _connect(self, within: float) -> socket.socket:
        sock = socket.create_connection((self.member.host, self.member.port), within)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self.member.tls:
                return sock
            assert self._context is not None
            return self._context.wrap_socket(sock, server_hostname=self.member.host)
        except BaseException:
            sock.close()
            raise

    def _explained(self, error: Exception, maybe_applied: bool) -> NoAnswer | EtcdUnusable:
        problem = _unusable(error, self._shows_certificate)
        if problem is None and _is_hang_up(error):  # as etcd does if it is spoken to in the wrong way
            problem = None if self._has_answered else _look_for_other_way(self.member)
            if problem is None and self._context is not None:
                problem = _unusable(_hear_alert(self.member, self._context), self._shows_certificate)
        if problem is not None:
            return EtcdUnusable(f"{self.member} {problem}")
        return NoAnswer(f"{self.member}: {self._reason(error)}", maybe_applied)

    def _reason(self, error: Exception) -> str:
        other = None
        if isinstance(error, HungUp) and not self.member.tls:
            other = "https://"
        elif type(error).__name__ in ("SSLEOFError", "SSLZeroReturnError"):
            other = "http://"
        if other is not None and not self._has_answered:
            return f"it hung up without an answer, as one does that wants {other} (or that is just ending)"
        return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _host_header(member: Member) -> str:
    """Return what HTTP's header names a member; of an address, the part that is of this host alone is left out."""
    host, percent, rest = str(member).partition("://")[2].partition("%")
    return host + rest[rest.index("]") :] if percent else host


def _is_hang_up(error: Exception) -> bool:
    """Tell whether the other side has ended a connection without a word, or with one that was lost on the way."""
    return isinstance(error, (ConnectionResetError, BrokenPipeError)) or type(error).__name__ == "SSLEOFError"


def _hear_alert(member: Member, context: ssl.SSLContext) -> Exception | None:
    """Return why a member ends a connection by TLS on which nothing is asked; None if it does not, or does not say.

    From TLS 1.3 on, a certificate is refused after the handshake. If the request is on its way by then, the refusal is
    lost with the connection.
    """
    try:
        sock = socket.create_connection((member.host, member.port), _LOOK_WITHIN)
        with contextlib.closing(sock), context.wrap_socket(sock, server_hostname=member.host) as tls:
            tls.recv(1)
    except (OSError, ValueError) as error:
        return error
    return None


def _look_for_other_way(member: Member) -> str | None:
    """Return what is wrong if TLS is spoken where there is none, or the other way round; None if it is not that."""
    quiet = contextlib.suppress(ImportError, OSError, ValueError)
    with quiet, socket.create_connection((member.host, member.port), _LOOK_WITHIN) as sock:
        if member.tls:
            sock.sendall(b"GET /version HTTP/1.0\r\n\r\n")
            return "can't be spoken to by TLS: write http://" if sock.recv(5) == b"HTTP/" else None
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # only for this look: nothing is asked or told
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        greeting = ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), greeting).do_handshake()
        sock.sendall(greeting.read())
        return "can't be asked without TLS: write https://" if sock.recv(1) in _TLS_RECORDS else None
    return None


def _unusable(error: Exception | None, shows_certificate: bool) -> str | None:
    """What an error says about the other side for good; None if it may be well the next time."""
    name = type(error).__name__
    if name == "SSLCertVerificationError":
        reason = getattr(error, "verify_message", "") or error
        return f"has a certificate that is not trusted ({reason}): see --etcd-cacert, and the name in the certificate"
    if name == "SSLError":
        reason = getattr(error, "reason", None) or str(error)
        if "CERT" in reason or "UNKNOWN_CA" in reason:
            if not shows_certificate:
                return f"wants a certificate of ours ({reason}): give --etcd-cert and --etcd-key"
            return f"does not accept our certificate ({reason}): has it ended? see --etcd-cert"
        return f"can't be spoken to by TLS ({reason}): is it http?"
    if isinstance(error, NoHttp):
        return f"is no etcd, since it does not speak HTTP: it says {str(error)[:40]!r}"
    return None
