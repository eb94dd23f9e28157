"""doctor, on hosts of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..support.site import Node, Site, new_nodes, nodes_can_be_made
from ..support.waiting import DEADLINE

pytestmark = pytest.mark.skipif(not nodes_can_be_made(), reason="needs root, for namespaces")


def doctor(node: Node, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and what each check found."""
    command = node.words("env", "-u", "IPCLOCKER_PORT", node.site.file, "doctor", "--json", *words)
    done = subprocess.run(command, env=node.site.environment, capture_output=True, text=True, timeout=DEADLINE)
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["host"] == node.name and document["ok"] == (done.returncode == 0)
    return done.returncode, {check["name"]: check for check in document["checks"]}


def start(node: Node, *words: str) -> None:
    node.start("env", "-u", "IPCLOCKER_PORT", node.site.file, *words, "--nofork").says("listening on ")


def test_a_cluster_that_is_set_up_bit_by_bit(bare_site: Site, tmp_path: Path) -> None:
    with new_nodes(bare_site, "lockhost", "worker") as (lockhost, worker):
        code, found = doctor(worker, "--host", "lockhost")
        assert code == 1
        assert found["lockerd of lockhost"]["state"] == found["pidstatd of lockhost"]["state"] == "failed"
        assert "ipclocker lockerd" in found["lockerd of lockhost"]["advice"]
        assert found["port 1751"]["found"].startswith("free")

        start(lockhost, "lockerd", "--host", "0.0.0.0", "--state", "none")
        start(lockhost, "pidstatd")
        code, found = doctor(worker, "--host", "lockhost")
        assert (code, found["pidstatd of localhost"]["state"]) == (0, "warning")
        assert "second response on 10.99.0.1:1751" in found["lockerd of lockhost"]["found"]
        assert found["host name"]["found"] == "'worker' is 10.99.0.2"
        assert found["address 10.99.0.2"]["found"] == "comes back as worker"
        assert found["pid namespace"]["state"] == "warning", "they are containers"

        code, found = doctor(lockhost)
        assert code == 0
        assert "lockerd has it: process " in found["port 1751"]["found"]
        assert "lockerd" in found["port 1751"]["found"].partition("(")[2], "the name of the process"
        assert "pidstatd has it: process " in found["port 1752"]["found"]

        # Somebody else has the port, another name server is silent, and the host calls itself what nobody knows.
        script = (
            "import socket, time; a = socket.create_server(('0.0.0.0', 1751)); "
            "b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.bind(('0.0.0.0', 53)); "
            "print('there', flush=True); time.sleep(1000)"
        )
        other = worker.start("/usr/bin/python3", "-c", script)
        assert other.process.stdout is not None and other.process.stdout.readline() == "there\n"
        resolver = tmp_path / "resolv.conf"
        resolver.write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
        worker.run("mount", "--bind", str(resolver), "/etc/resolv.conf")
        worker.run("hostname", "stranger")
        worker.name = "stranger"
        code, found = doctor(worker, "--host", "lockhost")
        assert code == 1
        assert "(python3)" in found["port 1751"]["found"]
        assert found["port 1751"]["state"] == "failed"
        assert found["host name"]["state"] == "failed" and "no answer within" in found["host name"]["found"]
        assert found["lockerd of lockhost"]["state"] == "ok"
