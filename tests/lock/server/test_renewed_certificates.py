"""A lockerd whose certificates for etcd are renewed, and SIGHUP: it goes on with new ones, and never with bad ones."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from ...support.etcd import Certificates, Etcd, running_etcd
from ...support.shared_lockerd import SharedLockerd
from ...support.waiting import wait_for

FILES = (("cacert", "ca.crt"), ("cert", "own.crt"), ("key", "own.key"))


def install(certificates: Certificates, folder: Path, days: int = 2) -> None:
    """Put a new certificate of this authority where lockerd reads it."""
    certificate, key = certificates.issue("lockerd", days)
    for file, name in ((certificates.authority, "ca.crt"), (certificate, "own.crt"), (key, "own.key")):
        shutil.copy(file, folder / name)


def start(etcd: Etcd, folder: Path) -> SharedLockerd:
    files = [f"--etcd-{option}={folder / name}" for option, name in FILES]
    return SharedLockerd(etcd, folder / "state", *files).serves()


def hang_up(shared: SharedLockerd, text: str) -> None:
    """Send SIGHUP, and wait until it has once more logged this."""
    before = shared.log().count(text)
    shared.process.send_signal(signal.SIGHUP)
    wait_for(lambda: shared.log().count(text) > before, f"'{text}' in the log")


def test_a_new_certificate_is_used_after_a_hang_up_and_a_bad_one_is_not(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "e", tls=True, client_certificates=True) as etcd:
        assert etcd.certificates is not None
        install(etcd.certificates, tmp_path)
        with start(etcd, tmp_path) as shared:
            shared.ask("user u; locks x; timeout 3600; LOCK")
            (tmp_path / "own.crt").write_text("half")
            hang_up(shared, "serves on: lockerd: the certificate")
            install(etcd.certificates, tmp_path, days=-1)
            hang_up(shared, "serves on: lockerd: https://")
            assert "does not accept our certificate" in shared.log()
            assert shared.ask("locks x; STATUS")[0] == "owner u"
            install(etcd.certificates, tmp_path)
            hang_up(shared, "serves the lock space")
            assert shared.ask("locks x; STATUS")[0] == "owner u"


def test_a_certificate_that_has_ended_keeps_it_from_serving_until_it_is_renewed(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "e", tls=True, client_certificates=True) as etcd:
        assert etcd.certificates is not None
        install(etcd.certificates, tmp_path)
        with start(etcd, tmp_path) as shared:
            shared.ask("user u; locks x; timeout 3600; LOCK")
            other = Certificates(tmp_path / "other")  # who believes it no more, as at its end; nor do we believe etcd
            renew_etcd(etcd, other)
            shared.says("waits for etcd: ")
            assert "has a certificate that is not trusted" in shared.log()
            hang_up(shared, "can't take over")
            install(other, tmp_path)
            hang_up(shared, "serves the lock space")
            assert shared.ask("locks x; STATUS")[0] == "owner u"


def renew_etcd(etcd: Etcd, authority: Certificates) -> None:
    """Start etcd again with a certificate of another authority, which is then the only one that it believes."""
    assert etcd.certificates is not None
    for file in (*authority.issue("server"), authority.authority):
        shutil.copy(file, etcd.certificates.folder / file.name)
    (member,) = etcd.members
    member.restart()
