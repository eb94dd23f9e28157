"""lockersh on a terminal, under a shell with job control: keys, jobs, the window, and the hang-up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.processes import children, is_alive, state
from ..support.site import Site, Tool
from ..support.waiting import wait_for
from .terminal import Terminal

# Says what it gets, and how often; ends by the word "end". It reads in a thread: a handler that is to run just before
# the main thread waits for input would run after that only.
COMMAND = """
import os, queue, signal, sys, threading, time
def tell(word):
    os.write(1, f"<{word}>".encode())
def stop(number, frame):
    tell("stops")
    if SENDS_TO_GROUP:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(0, signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, stop)
    else:
        os.kill(os.getpid(), signal.SIGSTOP)
    tell("goes on")
SENDS_TO_GROUP = "group" in sys.argv
signal.signal(signal.SIGINT, lambda n, f: tell("int"))
signal.signal(signal.SIGQUIT, lambda n, f: tell("quit"))
signal.signal(signal.SIGWINCH, lambda n, f: tell("%dx%d" % os.get_terminal_size()))
signal.signal(signal.SIGUSR1, lambda n, f: tell("usr1"))
signal.signal(signal.SIGHUP, lambda n, f: (open(sys.argv[1], "a").write("hup\\n")))
signal.signal(signal.SIGTERM, lambda n, f: (open(sys.argv[1], "a").write("term\\n"), os._exit(9)))
if "catch" in sys.argv:
    signal.signal(signal.SIGTSTP, stop)
lines = queue.Queue()
def read():
    line = b""
    while line != b"end\\n":  # what comes behind it is for the shell
        try:
            line = os.read(0, 1000)
        except OSError:
            line = b""
        if line:
            lines.put(line.decode().strip())
        else:
            time.sleep(0.05)
tell(f"ready {os.getpid()}")
threading.Thread(target=read, daemon=True).start()  # in the background this stops it
while True:
    try:
        line = lines.get(timeout=0.05)
    except queue.Empty:
        continue
    tell("read " + line)
    if line == "end":
        os._exit(8)
"""


class Person:
    """Someone at a terminal with a shell."""

    def __init__(self, site: Site, shell: str) -> None:
        self.site = site
        self.terminal = Terminal(
            shell.split(),
            {**site.environment, "PS1": "$ ", "L": f"{site.file} lockersh --lock x", "HISTFILE": "", "TERM": "dumb"},
        )
        self.report = site.folder / f"report{self.terminal.pid}"
        program = site.folder / "command.py"
        program.write_text(COMMAND)
        self.command = f"{sys.executable} {program} {self.report}"
        # The type-ahead of a shell that has just begun may be lost; its prompt says that it reads.
        self.terminal.expect(r"\$ ")
        self.type, self.line, self.expect = self.terminal.type, self.terminal.line, self.terminal.expect

    def run(self, *words: str, lock: str = "$L") -> int:
        """Run the command under a lock, in the foreground; its pid."""
        self.line(f"{lock} {self.command} {' '.join(words)}")
        return int(self.expect(r"<ready (\d+)>")[1])

    def see_it_stopped(self) -> None:
        """Ask the shell for its jobs until it says that the one there is has stopped."""

        def ask() -> bool:
            self.line("jobs")
            return self.expect(r"Stopped|Running")[0] == "Stopped"

        wait_for(ask, "the stop of the job")

    def end(self) -> None:
        """End the command that runs in the foreground."""
        self.line("end")
        self.expect("<read end>")
        self.line("echo status=$?")
        self.expect("status=8\\b")


@pytest.fixture(params=["bash --norc --noprofile -i", "dash -i"], ids=["bash", "dash"])
def person(request: pytest.FixtureRequest, shared_site: Site) -> Iterator[Person]:
    if shutil.which(request.param.split()[0]) is None:
        pytest.skip(f"there is no {request.param.split()[0]}")
    person = Person(shared_site, request.param)
    yield person
    shared_site.ends_with(*children(person.terminal.pid))
    person.terminal.clean_up()
    shared_site.end_tools()
    shared_site.free("x")


def test_interrupt_and_quit_reach_the_command_once(person: Person) -> None:
    person.run()
    for _ in range(3):
        person.type("\x03")
        assert "<" not in person.expect(r"<int>(.*)")[1]
        person.type("\x1c")
        person.expect("<quit>")
        person.line("word")
        seen = person.expect("(?s)^.*?<read word>")[0]
        assert "int" not in seen and "quit" not in seen, "a second time"
    person.end()


def test_interrupt_ends_a_command_that_does_not_care(person: Person) -> None:
    person.line("$L 'echo begins; exec sleep 1000'")
    person.expect("begins\r")
    person.type("\x03")
    person.expect(r"\$ ")
    person.line("echo status=$?")
    person.expect("status=130")
    wait_for(lambda: not person.site.locks(), "the lock to be free")


@pytest.mark.parametrize("how", ["", "catch", "catch group"])
def test_stop_and_go_on(person: Person, how: str) -> None:
    """By default, for a command that catches SIGTSTP, and for one that then stops its whole group."""
    person.run(how)
    for _ in range(3):
        person.type("\x1a")
        person.expect("Stopped")
        person.line("echo stopped; jobs")
        person.expect("(?s)stopped\r.*Stopped")
        person.line("fg")
        if how:
            person.expect("<goes on>")
        person.line("word")
        assert "<stops>" not in person.expect("(?s)^.*?<read word>")[0]
    person.end()


def test_go_on_in_the_background_and_stop_for_input(person: Person) -> None:
    command = person.run()
    person.type("\x1a")
    person.expect("Stopped")
    person.line("bg")
    person.see_it_stopped()
    assert state(command) == "T", "it reads from the terminal"
    person.line("fg")
    person.line("word")
    person.expect("<read word>")
    person.end()


def test_a_background_job_that_reads_the_terminal(person: Person) -> None:
    person.line(f"$L {person.command} &")
    person.expect(r"<ready (\d+)>")
    person.see_it_stopped()
    person.line("fg")
    person.line("word")
    person.expect("<read word>")
    person.end()


def test_stop_and_go_on_while_waiting(person: Person) -> None:
    holder = person.site.hold()
    person.line(f"$L --verbose {person.command}")
    for _ in range(2):
        person.expect("waiting for lock x: .* holds it|waiting for lock x: [0-9]+ s")
        person.type("\x1a")
        person.expect("Stopped")
        person.line("echo stopped; jobs")
        person.expect("(?s)stopped\r.*Stopped")
        person.line("fg")
    person.expect("waiting for lock x: [0-9]+ s")
    holder.process.terminate()
    person.expect("<ready")
    person.end()


@pytest.mark.parametrize(("key", "number"), [("\x03", 2), ("\x1c", 3)])
def test_interrupt_while_waiting(person: Person, key: str, number: int) -> None:
    holder = person.site.hold()
    person.line(f"$L --verbose {person.command}")
    person.expect("waiting for lock x: .* holds it")
    person.type(key)
    person.expect(r"\$ ")
    person.line("echo status=$?")
    person.expect(f"status={128 + number}")
    assert holder.process.poll() is None
    holder.process.terminate()
    wait_for(lambda: not person.site.locks(), "the lock to be free")


def test_window_size(person: Person) -> None:
    person.run()
    person.terminal.resize(33, 77)
    person.expect("<77x33>")
    person.end()


def test_an_interactive_shell_as_the_command(person: Person) -> None:
    """It makes a process group of its own, and takes the terminal; `suspend` stops it all."""
    person.line("PS1='inner> ' $L --no-shell bash --norc --noprofile -i")
    person.expect(r"\ninner> ")
    person.line("sh -c 'echo begins; exec sleep 1000'")  # who says it has the terminal by then
    person.expect("begins\r")
    person.type("\x03")
    person.expect(r"\ninner> ")
    person.line("suspend")
    person.expect("Stopped")
    person.line("fg")
    person.line("echo on${TERM}on")
    person.expect("ondumbon")
    person.line("exit 6")
    person.expect(r"\n\$ ")
    person.line("echo status=$?")
    person.expect("status=6")


def test_hang_up(person: Person) -> None:
    """The shell ends by it, and then the kernel or the shell tells the foreground job."""
    command = person.run()
    person.terminal.hang_up()
    wait_for(person.report.exists, "the hang-up to reach the command")
    with contextlib.suppress(ProcessLookupError):  # it may have ended since it can't write any more
        os.kill(command, signal.SIGKILL)
    wait_for(lambda: not person.site.locks(), "the lock to be free")


def test_hang_up_while_waiting(person: Person) -> None:
    holder = person.site.hold()
    person.line(f"$L --verbose {person.command}")
    person.expect("waiting for lock x: .* holds it")
    [waiter] = children(person.terminal.pid)
    person.terminal.hang_up()
    wait_for(lambda: not is_alive(waiter), "the end of the waiter")
    holder.process.terminate()
    wait_for(lambda: not person.site.locks(), "the lock to be free")


@pytest.fixture
def leader(shared_site: Site) -> Iterator[tuple[Terminal, Path]]:
    """lockersh as the leader of the session, as `ssh -t host lockersh ...` and `docker run -t` have it."""
    program, report = shared_site.folder / "command.py", shared_site.folder / "report"
    program.write_text(COMMAND)
    words = [shared_site.file, "lockersh", "--lock", "x", sys.executable, str(program), str(report)]
    terminal = Terminal(words, shared_site.environment)
    yield terminal, report
    shared_site.ends_with(*children(terminal.pid))
    terminal.clean_up()
    shared_site.end_tools()
    shared_site.free("x")
    report.unlink(missing_ok=True)


def test_leader_of_the_session(leader: tuple[Terminal, Path]) -> None:
    terminal, _ = leader
    command = int(terminal.expect(r"<ready (\d+)>")[1])
    terminal.type("\x03")
    terminal.expect("<int>")
    terminal.type("\x1a")  # nobody could continue it, so the kernel does not even stop the command
    os.kill(command, signal.SIGSTOP)
    wait_for(lambda: state(command) == "T", "the stop")
    os.kill(command, signal.SIGCONT)
    terminal.line("word")
    assert "<int>" not in terminal.expect("(?s)^.*?<read word>")[0]
    terminal.line("end")
    assert terminal.end() == 8


def test_hang_up_of_a_leader_reaches_the_command(leader: tuple[Terminal, Path]) -> None:
    """The kernel tells the session's leader only."""
    terminal, report = leader
    terminal.expect(r"<ready (\d+)>")
    terminal.hang_up()
    wait_for(lambda: report.exists() and report.read_text() == "hup\n", "the hang-up to reach the command")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.end() == 9
    assert report.read_text() == "hup\nterm\n"


def test_a_job_in_the_background_is_quiet(person: Person) -> None:
    holder = person.site.hold()
    person.line("$L --verbose 'echo done' &")
    person.expect("waiting for lock x: .* holds it")
    person.line("sleep 1.5; echo slept")
    assert not [line for line in person.expect("(?s)^.*?slept\r")[0].split("\r") if "waiting" in line]
    holder.process.terminate()
    person.expect("done")


def test_hold_is_released_before_the_prompt(person: Person) -> None:
    for _ in range(5):
        person.line("$L true; $L --timeout 0 true; echo status=$?")
        person.expect("status=0")


def test_tool_is_no_longer_than_its_command(shared_site: Site) -> None:
    tool: Tool = shared_site.start_lockersh("true")
    assert tool.end() == 0
    assert not shared_site.locks()
