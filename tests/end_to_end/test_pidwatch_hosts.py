"""pidwatch on one host for a process of another one."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Iterator

import pytest

from ..support.site import Node, Site, Tool, new_nodes, nodes_can_be_made

pytestmark = pytest.mark.skipif(
    not nodes_can_be_made(), reason="PIDWATCH ACROSS HOSTS IS NOT TESTED: this needs namespaces, so root"
)
SECOND = 1.5  # in which the end of a process is acted on; one, and what this test itself takes
HUNG_UP = 128 + signal.SIGHUP  # nsenter(1) ends by no signal but says which one it was, as a shell does


@pytest.fixture
def nodes(bare_site: Site) -> Iterator[list[Node]]:
    """Two hosts with pid servers."""
    with new_nodes(bare_site, "near", "far") as nodes:
        for node in nodes:
            node.serve()
        yield nodes


def watch(node: Node, pid: int, *words: str, host: str = "far") -> Tool:
    """pidwatch for a process of another host; on return it has heard that this is there."""
    command = ["pidwatch", "--host", host, "--pid", str(pid), "--debug", *words, "sleep 1000"]
    tool = node.start(node.site.file, *command)
    tool.says("answers: True")
    return tool


def end(tool: Tool) -> int:
    """Wait for the end; the status as a shell has it."""
    code = tool.end()
    return code if code >= 0 else 128 - code


def answers(tool: Tool) -> int:
    """How many answers it has had."""
    return len(re.findall("answers: ", tool.err))


def more_answers(tool: Tool, count: int = 3) -> bool:
    wanted = answers(tool) + count
    deadline = time.monotonic() + 20
    while answers(tool) < wanted and time.monotonic() < deadline and tool.process.poll() is None:
        time.sleep(0.05)
    return answers(tool) >= wanted


@pytest.mark.parametrize("host", ["far", "10.99.0.2", "[::ffff:10.99.0.2]"])
def test_the_command_ends_within_a_second(nodes: list[Node], host: str) -> None:
    near, far = nodes
    pid = far.sleeper()
    tool = watch(near, pid, host=host)
    assert more_answers(tool)
    far.kill(pid)
    killed = time.monotonic()
    assert end(tool) == HUNG_UP
    assert time.monotonic() - killed < SECOND


def test_the_number_is_one_of_that_host(nodes: list[Node]) -> None:
    near, far = nodes
    there, here = far.sleeper(), near.sleeper()
    while here < there:  # both begin to count at 1
        here = near.sleeper()
    while there < here:
        there = far.sleeper()
    assert there == here
    tool = watch(near, there)
    near.kill(here)
    assert more_answers(tool)
    far.kill(there)
    assert end(tool) == HUNG_UP


def test_gone_at_the_start(nodes: list[Node]) -> None:
    near, far = nodes
    pid = far.sleeper()
    far.kill(pid)
    tool = near.start(near.site.file, "pidwatch", "--host", "far", "--pid", str(pid), "sleep 1000")
    assert end(tool) == HUNG_UP


def test_a_chain_of_shells(nodes: list[Node]) -> None:
    near, far = nodes
    # The watched process is the shell that begins the chain, as one that calls ssh is.
    pidwatch = (
        f"{near.site.file} pidwatch --host far --pid {far.sleeper()} --debug --cd /usr 'pwd >&2; exec sleep 1000'"
    )
    inner = f"sh -c {shlex.quote(pidwatch)}"
    tool = near.start("sh", "-c", f"sh -c {shlex.quote(inner)}; echo status $?")
    tool.says("answers: True")
    tool.says("/usr\n")
    far.kill(int(re.findall(r"process (\d+) of far is watched", tool.err)[0]))
    assert tool.out() == f"status {HUNG_UP}\n"


def test_a_host_that_is_cut_off(nodes: list[Node]) -> None:
    near, far = nodes
    pid = far.sleeper()
    tool = watch(near, pid)
    far.cut()
    tool.says("no pid server answers at far, port 1752")  # after 5 s
    assert tool.process.poll() is None
    far.cut(off=False)
    assert more_answers(tool)
    far.cut()
    far.kill(pid)
    far.cut(off=False)
    assert end(tool) == HUNG_UP
    assert tool.err.count("no pid server answers") == 1


def test_a_host_that_is_down_for_long(nodes: list[Node]) -> None:
    near, far = nodes
    tool = watch(near, far.sleeper(), "--down-after", "1.5", "--interval", "0.1")
    assert more_answers(tool, 20)
    far.cut()
    cut = time.monotonic()
    assert end(tool) == HUNG_UP
    assert 1.0 < time.monotonic() - cut < 1.5 + SECOND
    assert "no pid server answers at far, port 1752, for 1.5 s" in tool.err


def test_nobody_is_asked_once_a_pidwatch_has_ended(nodes: list[Node]) -> None:
    near, far = nodes
    pid = far.sleeper()
    assert near.run(near.site.file, "pidwatch", "--host", "far", "--pid", str(pid), "echo done") == "done\n"
    assert "pidwatch" not in near.run("ps", "-A", "-o", "args")


def test_a_name_that_is_not_known(nodes: list[Node]) -> None:
    words = ["--host", "nosuch.invalid", "--pid", "1", "--down-after", "2", "sleep 1000"]
    tool = nodes[0].start(nodes[0].site.file, "pidwatch", *words)
    assert end(tool) == HUNG_UP
    assert tool.err == "pidwatch: the host 'nosuch.invalid' is not known here, for 2 s: process 1 counts as gone\n"


def test_from_the_background(nodes: list[Node]) -> None:
    near, far = nodes
    there, here = far.sleeper(), near.sleeper()
    near.run(near.site.file, "pidwatch", "--host", "far", "--pid", str(there), "--foreground", str(here))
    assert "pidwatch" in near.run("ps", "-A", "-o", "args")
    far.kill(there)
    deadline = time.monotonic() + 20
    while "pidwatch" in near.run("ps", "-A", "-o", "args") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "sleep 1000" not in near.run("ps", "-A", "-o", "args")


# A name server that never answers: a socket that nobody reads.


def test_a_silent_name_server_holds_up_nobody(nodes: list[Node]) -> None:
    near, _ = nodes
    resolv = near.site.folder / "resolv.conf"
    resolv.write_text("nameserver 10.99.0.9\n")
    near.run("mount", "--bind", str(resolv), "/etc/resolv.conf")
    begun = time.monotonic()
    words = ["pidwatch", "--host", "some.example.com", "--pid", "1", "echo it runs; sleep 1000"]
    tool = near.start(near.site.file, *words)
    assert tool.process.stdout is not None
    assert tool.process.stdout.readline() == "it runs\n"
    assert time.monotonic() - begun < SECOND
    near.run("pkill", "-TERM", "-f", "pidwatch --host some")
    assert end(tool) == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 2 * SECOND
