"""Options that say which etcd the locks are in; each may stand in a variable of the environment as well."""

from __future__ import annotations

import os

from ..lock.storage.etcd_settings import PREFIX, EtcdSettings
from .command_line import CommandLine, option


class EtcdOptions(CommandLine):
    """The options of a tool that uses etcd."""

    etcd: str | None = option(
        "Keep locks in etcd, for several lockerd to serve: the URLs of its members, with commas in between.",
        value="URL,...",
        environment="IPCLOCKER_ETCD",
    )
    etcd_prefix: str | None = option(
        "Begin of the names of all keys in etcd: one for each lock space.",
        otherwise=PREFIX,
        environment="IPCLOCKER_ETCD_PREFIX",
    )
    etcd_cacert: str | None = option(
        "Trust etcd members with a certificate from the authority in this file.",
        value="FILE",
        environment="IPCLOCKER_ETCD_CACERT",
    )
    etcd_cert: str | None = option("Show this certificate to etcd.", value="FILE", environment="IPCLOCKER_ETCD_CERT")
    etcd_key: str | None = option("The key of that certificate.", value="FILE", environment="IPCLOCKER_ETCD_KEY")
    etcd_user: str | None = option("Log in to etcd as this user.", value="NAME", environment="IPCLOCKER_ETCD_USER")
    etcd_password_file: str | None = option(
        "File with that user's password.", value="FILE", environment="IPCLOCKER_ETCD_PASSWORD_FILE"
    )

    def etcd_settings(self) -> EtcdSettings | None:
        """Return what options and environment say; None without --etcd. Raises UsageError."""
        urls = self.etcd if self.etcd is not None else os.environ.get("IPCLOCKER_ETCD") or None
        given = {name: self._value(name) for name in ("cacert", "cert", "key", "user", "password_file")}
        if urls is None:
            return None
        prefix = self._value("prefix")
        files = {name: os.path.abspath(word) if word and name != "user" else word for name, word in given.items()}
        return EtcdSettings.from_text(urls, PREFIX if prefix is None else prefix, **files)

    def _value(self, name: str) -> str | None:
        """Return the value of --etcd-NAME. Raises UsageError for an option without --etcd."""
        value: str | None = getattr(self, f"etcd_{name}")
        if value is not None and self.etcd is None and not os.environ.get("IPCLOCKER_ETCD"):
            raise self.wrong(f"--etcd-{name.replace('_', '-')} '{value}' is of no use without --etcd")
        return value if value is not None else os.environ.get(f"IPCLOCKER_ETCD_{name.upper()}") or None
