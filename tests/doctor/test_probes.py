"""The facts about this host, and what a path is on, by the kernel's table."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipclocker.doctor.probes import ThisHost, existing_parent, file_system, kind_of

MOUNTS = """\
22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /var rw shared:2 master:3 - xfs /dev/sdb rw
24 23 0:6 / /var/lib/a\\040b rw - nfs4 server:/x rw
25 22 0:7 / /variety rw - tmpfs none rw
26 22 0:8 / /srv/données rw - nfs server:/y rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var", "xfs"),
        ("/var/lib/a b/c", "nfs4"),
        ("/var/lib", "xfs"),
        ("/variety/x", "tmpfs"),
        ("/srv/données/x", "nfs"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert kind_of(path, MOUNTS) == kind


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="needs Linux")
def test_the_file_system_of_proc() -> None:
    assert file_system("/proc/self") == "proc"


def test_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert existing_parent(str(tmp_path / "a" / "b")) == str(tmp_path)
    assert existing_parent(str(tmp_path)) == str(tmp_path)


def test_facts_about_this_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.delenv("IPCLOCKER_HOST", raising=False)
    host = ThisHost()
    assert (host.hosts, host.named) == (["localhost"], False)
    assert ThisHost("a:b").hosts == ["a", "b"] and ThisHost("a").named
    assert host.python()[0] >= (3, 9, 0)
    assert host.is_own_address("127.0.0.1") and not host.is_own_address("192.0.2.1")
    assert host.addresses("localhost")
    wall, monotonic, boot = host.clocks()
    assert wall > 0 and boot >= monotonic >= 0
    host.synchronised()  # nobody knows what it is here, but it can be asked
    assert host.state_folder()[0] == str(tmp_path / "state") and host.state_folder()[2] == ""
    (tmp_path / "state").write_text("")
    assert host.state_folder()[2] == f"{tmp_path}/state is no folder"
