"""Where an etcd cluster is and how to log in there, as options say it. Nothing is looked up or read here."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional
from urllib.parse import urlsplit

from ...errors import UsageError

PORT = 2379  # of etcd's clients
PREFIX = "ipclocker/"
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")


class Member(NamedTuple):
    """One member of a cluster, as its clients reach it."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


class EtcdSettings(NamedTuple):
    """An etcd cluster and the place in it; what options say has to go through `checked` once.

    `urls`: of its members. `prefix`: what the keys of one lock space begin with. `cacert`: file of the authority that
    the members' certificates are from, the host's own ones else. `cert`, `key`: files of the certificate that is shown
    to them. `user`, `password_file`: whom to log in as, where etcd wants that.
    """

    urls: tuple[str, ...]
    prefix: str = PREFIX
    cacert: Optional[str] = None
    cert: Optional[str] = None
    key: Optional[str] = None
    user: Optional[str] = None
    password_file: Optional[str] = None

    @classmethod
    def from_text(cls, urls: str, prefix: str = PREFIX, **others: str | None) -> EtcdSettings:
        """Return the settings, checked, with the URLs separated by commas. Raises UsageError."""
        return cls(tuple(urls.split(",")), prefix, **others).checked()

    def checked(self) -> EtcdSettings:
        """Return them with whole URLs and a prefix that ends in `/`; what is empty is not set. Raises UsageError."""
        members = [read_url(url) for url in self.urls]
        if not members:
            raise UsageError("no URL of etcd is given: write like http://db1:2379,http://db2:2379")
        cacert, cert, key, user, password_file = (word or None for word in self[2:])
        for one, other, names in (
            (cert, key, ("--etcd-cert", "--etcd-key")),
            (user, password_file, ("--etcd-user", "--etcd-password-file")),
        ):
            if (one is None) != (other is None):
                given, missing = names if other is None else names[::-1]
                raise UsageError(f"{given} '{one or other}' is of no use without {missing}: give both or neither")
        if (cacert or cert) and not any(member.tls for member in members):
            raise UsageError(f"certificates are for https, but '{','.join(self.urls)}' says http: write https://")
        urls = tuple(dict.fromkeys(map(str, members)))
        return EtcdSettings(urls, _read_prefix(self.prefix), cacert, cert, key, user, password_file)

    def members(self) -> list[Member]:
        """The members of the URLs. Raises UsageError."""
        return [read_url(url) for url in self.urls]


def read_url(url: str) -> Member:
    """Read the URL of one member. Raises UsageError."""
    wrong = UsageError(f"{url!r} is no URL of etcd: write http://HOST:PORT or https://HOST:PORT")
    try:
        parts = urlsplit(url.strip(" "))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or port == 0 or not url.isprintable():
        raise wrong
    if "@" in parts.netloc:
        raise UsageError(
            f"the URL of etcd at '{host}' has a user in it: give that by --etcd-user and --etcd-password-file"
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(f"the URL of etcd {url!r} has more than a host and a port: take off what follows them")
    return Member(host, PORT if port is None else port, parts.scheme == "https")


def _read_prefix(prefix: str) -> str:
    if not prefix or not prefix.isprintable() or " " in prefix:
        raise UsageError(
            f"the prefix of etcd's keys {prefix!r} is empty, or has white space in it: write like {PREFIX}"
        )
    return prefix if prefix.endswith("/") else prefix + "/"
