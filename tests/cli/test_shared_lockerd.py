"""What the tools say of two lockerd that share a lock space in etcd, one that serves and one that stands by."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import pytest

from ..support.etcd import Etcd, running_etcd
from ..support.processes import run_ipclocker
from ..support.servers import ThreadServer
from ..support.shared_lockerd import SharedLockerd
from ..support.waiting import wait_for

PORT = 21794
SERVES, STANDS_BY, ALONE, NOBODY = (f"127.{os.getpid() >> 8 & 255}.{os.getpid() & 255}.{n}" for n in (71, 72, 73, 74))
HOSTS = f"{NOBODY}:{STANDS_BY}:{SERVES}"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    folder = tmp_path_factory.mktemp("shared")
    with running_etcd(folder / "e") as etcd:
        one = SharedLockerd(etcd, folder / "a", host=SERVES, port=PORT)
        with one.serves(), SharedLockerd(etcd, folder / "b", host=STANDS_BY, port=PORT) as other:
            other.stands_by()
            wait_for(lambda: f"{STANDS_BY}:{PORT}" in str(one.ask("space 1; STATUS")), "the one to know of the other")
            yield etcd


def test_ping(etcd: Etcd) -> None:
    done = run_ipclocker("lockstat", "ping", "--dhost", HOSTS, "--port", str(PORT))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"silent     {NOBODY}:{PORT} ({NOBODY}:{PORT}: Connection refused)"
    assert lines[1] == f"stands by  {STANDS_BY}:{PORT}"
    assert re.fullmatch(rf"serves     {SERVES}:{PORT} answered in \d.\d+ s: version .*", lines[2])
    found = json.loads(run_ipclocker("lockstat", "ping", "--dhost", HOSTS, "--port", str(PORT), "--json").stdout)
    assert found["server"] == f"{SERVES}:{PORT}"
    silent, second, first = found["hosts"]
    assert [host["state"] for host in found["hosts"]] == ["silent", "stands by", "serves"]
    assert first["space"] == second["space"] == etcd.keys("ipclocker/space")["ipclocker/space"]
    assert (first["replicated"], second["replicated"], silent["replicated"]) == (True, True, None)
    assert set(first) == set(silent)


def test_check(etcd: Etcd) -> None:
    done = run_ipclocker("check-lockerd", "-H", HOSTS, "-p", str(PORT), "-w", "30", "-c", "60")
    assert done.returncode == 0
    beside = re.escape(f"({NOBODY}:{PORT} silent, {STANDS_BY}:{PORT} stands by)")
    assert re.fullmatch(rf"LOCKERD OK - \d.\d+ second response on {SERVES}:{PORT} {beside} \| time=.*\n", done.stdout)
    done = run_ipclocker("check-lockerd", "-H", f"{STANDS_BY}:{NOBODY}", "-p", str(PORT))
    assert (done.returncode, done.stdout.startswith("LOCKERD CRITICAL - no lock server answers (")) == (2, True)


def test_doctor(etcd: Etcd) -> None:
    words = ["--host", HOSTS, "--port", str(PORT), "--etcd", etcd.urls[0], "--json"]
    checks = {check["name"]: check for check in json.loads(run_ipclocker("doctor", *words).stdout)["checks"]}
    assert checks[f"lockerd of {STANDS_BY}"]["found"] == "stands by: another one serves the lock space that they share"
    assert checks[f"lockerd of {NOBODY}"]["state"] == "warning"
    for name in (f"lockerd of {SERVES}", f"lockerd of {STANDS_BY}", "lock space", f"etcd member {etcd.urls[0]}"):
        assert checks[name]["state"] == "ok", name
    for name in ("etcd speed", "etcd compaction", "etcd space", "etcd prefix"):
        assert name in checks


def test_doctor_refuses_a_list_with_another_lock_space(etcd: Etcd) -> None:
    with ThreadServer(ALONE, PORT):
        words = ["--host", f"{SERVES}:{ALONE}", "--port", str(PORT)]
        done = run_ipclocker("doctor", *words)
    assert done.returncode == 1
    assert f"failed   lock space: {ALONE}:{PORT} does not serve the lock space of {SERVES}:{PORT} (" in done.stdout
