"""`ipclocker supervise` as its users run it: programs kept alive, ended with all that is theirs, asked and told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Callable

import pytest

from .site import Site, is_alive, state, wait_for
from .supervising import NOTING, Supervised, all_gone, processes_with

Start = Callable[..., Supervised]


@pytest.fixture
def supervise(bare_site: Site) -> Iterator[Start]:
    """Starts supervisors, which are ended with the test."""
    started: list[Supervised] = []

    def start(*words: str, **more: object) -> Supervised:
        started.append(Supervised(bare_site, *words, name=f"sup{len(started)}", **more))
        return started[-1]

    yield start
    for supervised in started:
        if supervised.tool.process.poll() is None:
            supervised.end(signal.SIGTERM)
        assert "a fault of ours" not in supervised.tool.err


class TestRestarts:
    def test_a_program_is_started_again_whenever_it_dies(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}")
        for count in range(1, 4):
            pid = supervised.latest("web", count)
            os.kill(pid, signal.SIGKILL)
        last = supervised.latest("web", 4)
        program = supervised.programs()["web"]
        assert (program["pid"], program["restarts"]) == (last, 3)
        assert (program["last_exit"]["code"], program["last_exit"]["signal"]) == (None, "SIGKILL")
        assert supervised.end() == 0
        assert not is_alive(last)

    def test_a_program_that_cannot_be_executed(self, supervise: Start) -> None:
        supervised = supervise("--program", "/nonexistent/program x")
        line = "cannot execute '/nonexistent/program': No such file or directory"
        wait_for(lambda: supervised.out.read_text().count(line) >= 2, "it to be tried again")
        program = supervised.programs()["program"]
        assert program["last_exit"]["code"] == 127

    def test_pauses_grow(self, supervise: Start) -> None:
        supervised = supervise("--program", 'quick: echo $$ >> "$NOTES/quick"; exit 3', "--first-pause", "0.2")
        supervised.latest("quick", 3)
        wait_for(lambda: supervised.tool.err.count("it is started again in") >= 3, "three deaths")
        pauses = [float(found) for found in re.findall(r"it is started again in ([0-9.]+) s", supervised.tool.err)]
        assert 0.1 <= pauses[0] <= 0.2 and 0.3 <= pauses[1] <= 0.4 and 0.6 <= pauses[2] <= 0.8
        program = supervised.programs()["quick"]
        assert program["last_exit"]["code"] == 3
        assert (program["state"], program["pid"], program["uptime"]) == ("BACKOFF", None, None)
        assert program["next_start"] is not None

    def test_one_is_given_up(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}", "--program", "bad: exit 1", "--give-up", "3/20")
        supervised.tool.says("too often, it is not started again")
        programs = supervised.programs()
        assert (programs["bad"]["state"], programs["bad"]["restarts"]) == ("FATAL", 2)
        assert programs["web"]["state"] in ("STARTING", "RUNNING")
        answer = supervised.site.run("supervise", "start", "bad", "--pid-file", supervised.pid_file)
        assert answer.returncode == 1
        assert re.fullmatch(r"bad: BACKOFF, last exit: 1, \d s ago\n", answer.stdout)

    def test_a_container_ends_when_one_is_given_up(self, supervise: Start) -> None:
        supervised = supervise(
            "--program", f"web: {NOTING}", "--program", "bad: exit 1", "--give-up", "2/20", "--fatal-exit"
        )
        web = supervised.latest("web")
        assert supervised.tool.end() == 79
        assert "the program 'bad' died too often (2/20)" in supervised.tool.err
        assert not is_alive(web)

    def test_random_kills(self, supervise: Start) -> None:
        """Whatever is killed and how often: when that ends, every program is up again."""
        import random

        seconds = float(os.environ.get("IPCLOCKER_TEST_KILLS", "6"))
        count = 200 if seconds > 20 else 60
        chance = random.Random(int.from_bytes(os.urandom(4), "big"))
        words = [word for number in range(count) for word in ("--program", f"p{number}: {NOTING}")]
        supervised = supervise(*words, "--longest-pause", "1")
        for number in range(count):
            supervised.latest(f"p{number}")
        kills = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid = chance.choice([program["pid"] for program in supervised.programs().values() if program["pid"]])
            for victim in {pid, supervised.noted(f"p{chance.randrange(count)}")[-1]}:
                if is_alive(victim):
                    os.kill(victim, signal.SIGKILL)
                    kills += 1
        assert kills > 10
        wait_for(lambda: all(each["state"] == "RUNNING" for each in supervised.programs().values()), "all to be up")
        programs = supervised.programs()
        assert len(programs) == count
        assert sum(program["restarts"] for program in programs.values()) == kills
        pids = [program["pid"] for program in programs.values()]
        assert all(map(is_alive, pids)) and len(set(pids)) == count
        assert supervised.end() == 0
        assert not any(map(is_alive, pids))


class TestTheEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_exit_hook(self, supervise: Start, number: signal.Signals) -> None:
        hook = 'cat "$NOTES/web" > "$NOTES/last"; kill -0 $(cat "$NOTES/last") || echo all ended'
        supervised = supervise("--program", f"web: {NOTING}", "--exit-hook", hook)
        pid = supervised.latest("web")
        assert supervised.end(number) == 0
        assert supervised.noted("last") == [pid]
        assert "exit-hook: all ended" in supervised.out.read_text()
        assert not supervised.pid_file.exists() and not supervised.pid_file.with_suffix(".sock").exists()

    def test_an_exit_hook_that_hangs_is_ended_by_a_second_signal(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}", "--exit-hook", 'echo $$ > "$NOTES/hook"; exec sleep 1000')
        supervised.latest("web")
        supervised.tool.process.send_signal(signal.SIGTERM)
        hook = supervised.latest("hook")
        assert supervised.end() == 0
        assert not is_alive(hook)

    def test_a_stop_signal_of_its_own(self, supervise: Start) -> None:
        polite = 'trap "" TERM; trap "echo bye; exit 5" USR2; while :; do sleep 0.05; done'
        supervised = supervise("--program", f'polite: echo $$ > "$NOTES/polite"; {polite}', "--stop-signal", "USR2")
        supervised.latest("polite")
        assert supervised.end() == 0
        assert "polite: bye" in supervised.out.read_text()
        assert "exit status 5" in supervised.tool.err

    def test_what_does_not_end_is_killed(self, supervise: Start) -> None:
        deaf = 'trap "" TERM; echo $$ > "$NOTES/deaf"; while :; do sleep 0.05; done'
        supervised = supervise("--program", f"deaf: {deaf}", "--stop-timeout", "0.5")
        pid = supervised.latest("deaf")
        assert supervised.end() == 0
        assert not is_alive(pid)
        assert "deaf: it did not end in time: SIGKILL to" in supervised.tool.err

    def test_a_stopped_program_ends_by_its_signal(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}", "--stop-timeout", "1000")
        pid = supervised.latest("web")
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: state(pid) == "T", "it to be stopped")
        assert supervised.end() == 0
        assert "killed by SIGTERM" in supervised.tool.err


class TestDescendants:
    """A program that has children, some of which leave its group, its session, or their parents."""

    TREE = (
        'setsid sh -c "echo \\$\\$ >> $NOTES/tree; sleep {mark} & sleep {mark}" & '  # a session of its own
        "(setsid sleep {mark} &) ; "  # and an orphan
        '(trap "" TERM HUP; exec sleep {mark}) & '  # deaf
        "sleep {mark} & echo $$ >> $NOTES/tree; exec sleep {mark}"
    )
    COUNT = 6

    def start(self, supervise: Start, mark: str, *words: str) -> tuple[Supervised, int]:
        command = self.TREE.replace("{mark}", mark)
        supervised = supervise("--program", f"tree: {command}", "--stop-timeout", "1", *words)
        wait_for(lambda: len(processes_with(f"sleep {mark}")) >= self.COUNT, "the tree")
        pid = wait_for(lambda: supervised.programs()["tree"]["pid"], "the leader")
        return supervised, pid

    def test_end_with_it(self, supervise: Start) -> None:
        supervised, _ = self.start(supervise, "77001.5")
        answer = supervised.ask("stop", "tree")
        assert answer["programs"][0]["state"] == "STOPPED"
        assert processes_with("sleep 77001.5") == []
        assert supervised.end() == 0

    def test_end_before_it_is_started_again(self, supervise: Start) -> None:
        supervised, leader = self.start(supervise, "77002.5")
        before = processes_with("sleep 77002.5")
        os.kill(leader, signal.SIGKILL)
        wait_for(lambda: supervised.programs()["tree"]["pid"] not in (None, leader), "the next leader")
        assert not any(map(is_alive, before))
        supervised.end()
        assert processes_with("sleep 77002.5") == []

    @pytest.mark.parametrize("which", ["the guardian", "the supervisor"])
    def test_end_when_it_is_killed(self, supervise: Start, which: str) -> None:
        supervised, _ = self.start(supervise, "77003.5")
        supervisor = supervised.supervisor()
        os.kill(supervised.pid if which == "the guardian" else supervisor, signal.SIGKILL)
        assert supervised.tool.end() == (-signal.SIGKILL if which == "the guardian" else 70)
        all_gone([supervisor])
        wait_for(lambda: processes_with("sleep 77003.5") == [], "the end of all")

    def test_those_that_nobody_knows_end_with_the_supervisor(self, supervise: Start) -> None:
        """Neither their session nor their environment tells whose they are."""
        supervised = supervise("--program", f"web: (env -i setsid sleep 77004.5 &) ; {NOTING}")
        supervised.latest("web")
        wait_for(lambda: processes_with("sleep 77004.5"), "the stranger")
        assert supervised.end() == 0
        assert processes_with("sleep 77004.5") == []

    def test_orphans_are_reaped(self, supervise: Start) -> None:
        orphans = "for i in 1 2 3 4 5; do (sleep 0.05 &); done; "
        supervised = supervise("--program", f"web: {orphans}{NOTING}")
        supervised.latest("web")
        supervisor = supervised.supervisor()

        def zombies() -> list[str]:
            stats = (path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists())
            return [stat for stat in stats if f") Z {supervisor} " in stat]

        wait_for(lambda: not processes_with("sleep 0.05"), "the orphans' end")
        wait_for(lambda: not zombies(), "no zombie")


class TestTheList:
    def test_is_read_again(self, supervise: Start, bare_site: Site) -> None:
        path = bare_site.folder / "programs"
        path.write_text(f"kept: {NOTING}\ngone: {NOTING}  # soon\n")
        supervised = supervise("--file", str(path), "--program", f"given: {NOTING}")
        before = {name: supervised.latest(name) for name in ("kept", "gone", "given")}
        path.write_text(f"new: {NOTING}\nkept: {NOTING}\n")
        os.kill(supervised.pid, signal.SIGHUP)
        after = {"kept": supervised.latest("kept", 2), "given": supervised.latest("given", 2)}
        after["new"] = supervised.latest("new")
        all_gone(list(before.values()))
        assert {name: program["pid"] for name, program in supervised.programs().items()} == after
        assert supervised.noted("gone") == [before["gone"]]

    def test_that_is_bad_changes_nothing(self, supervise: Start, bare_site: Site) -> None:
        path = bare_site.folder / "programs"
        path.write_text(f"kept: {NOTING}\n")
        supervised = supervise("--file", str(path))
        pid = supervised.latest("kept")
        for text in ("kept: sleep 1\nkept: sleep 2\n", "kept:\n"):
            path.write_text(text)
            os.kill(supervised.pid, signal.SIGHUP)
            supervised.tool.says("the programs stay as they are")
        path.unlink()
        os.kill(supervised.pid, signal.SIGHUP)
        supervised.tool.says("can't be read: No such file or directory; the programs stay as they are")
        assert is_alive(pid) and supervised.programs()["kept"]["pid"] == pid

    def test_one_that_is_stopped_stays_so(self, supervise: Start, bare_site: Site) -> None:
        supervised = supervise("--program", f"off: {NOTING}", "--program", f"on: {NOTING}")
        supervised.latest("off")
        supervised.latest("on")
        supervised.ask("stop", "off")
        os.kill(supervised.pid, signal.SIGHUP)
        supervised.latest("on", 2)
        assert supervised.programs()["off"]["state"] == "STOPPED"
        assert len(supervised.noted("off")) == 1

    def test_one_that_is_dropped_and_taken_back_is_never_there_twice(self, supervise: Start, bare_site: Site) -> None:
        path = bare_site.folder / "programs"
        slow = 'trap "sleep 0.5; exit" TERM; echo $$ >> "$NOTES/slow"; while :; do sleep 0.05; done'
        path.write_text(f"slow: {slow}\n")
        supervised = supervise("--file", str(path), "--program", f"other: {NOTING}")
        first = supervised.latest("slow")
        path.write_text("")
        os.kill(supervised.pid, signal.SIGHUP)
        wait_for(lambda: "slow" not in supervised.programs(), "it to be dropped")
        path.write_text(f"slow: {slow}\n")
        os.kill(supervised.pid, signal.SIGHUP)
        second = supervised.latest("slow", 2)
        assert second != first and not is_alive(first)
        assert supervised.programs()["slow"]["pid"] == second


class TestControl:
    def test_status(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}", "--program", "mail: sleep 1000")
        pid = supervised.latest("web")
        wait_for(lambda: supervised.programs()["web"]["state"] == "RUNNING", "it to be up")
        shown = supervised.site.run("supervise", "status", "--pid-file", supervised.pid_file).stdout.splitlines()
        assert shown[0].split() == ["NAME", "STATE", "PID", "UPTIME", "RESTARTS", "LAST", "EXIT"]
        assert re.fullmatch(rf"web +RUNNING +{pid} +\d+ s +0 +-", shown[1])
        assert len(shown) == 3
        answer = supervised.ask("status", "web")
        assert set(answer) == {"supervisor", "programs"}
        assert set(answer["supervisor"]) == {"pid", "uptime", "lock"}
        (program,) = answer["programs"]
        assert set(program) == {
            *("name", "state", "pid", "uptime", "restarts", "next_start", "last_exit", "command"),
        }
        assert program["uptime"] >= 1.0

    def test_stop_start_restart(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}", "--program", f"mail: {NOTING}")
        web, mail = supervised.latest("web"), supervised.latest("mail")

        def tell(*words: str) -> subprocess.CompletedProcess[str]:
            return supervised.site.run("supervise", *words, "--pid-file", supervised.pid_file)

        stopped = tell("stop", "web")
        assert stopped.returncode == 0
        assert re.fullmatch(r"web: STOPPED, last exit: SIGTERM, \d s ago\n", stopped.stdout)
        assert not is_alive(web) and is_alive(mail)
        started = tell("start", "web")
        web = supervised.latest("web", 2)
        assert (started.returncode, started.stdout) == (0, f"web: RUNNING, process {web}\n")
        restarted = tell("restart")
        assert (restarted.returncode, restarted.stdout.count("RUNNING")) == (0, 2)
        assert not is_alive(web) and not is_alive(mail)
        unknown = tell("stop", "web", "nosuch")
        assert (unknown.returncode, unknown.stderr) == (
            64,
            "supervise: there is no program 'nosuch': there are web, mail\n",
        )
        assert supervised.programs()["web"]["state"] == "RUNNING", "all or nothing"

    def test_nobody_answers(self, bare_site: Site) -> None:
        path = bare_site.folder / "none.pid"
        for word in ("status", "start", "stop", "restart"):
            done = bare_site.run("supervise", word, "--pid-file", path)
            assert done.returncode == 69
            assert re.fullmatch(r"supervise: no supervisor answers at \S+/none.sock \(.*\): .*\n", done.stderr)

    def test_the_socket_is_the_users_own(self, supervise: Start) -> None:
        supervised = supervise("--program", f"web: {NOTING}", umask=0)
        supervised.latest("web")
        assert supervised.pid_file.with_suffix(".sock").stat().st_mode & 0o777 == 0o600


class TestOutput:
    def test_lines(self, supervise: Start) -> None:
        supervised = supervise("--program", "web: echo one; echo two >&2; printf three; sleep 1000")
        wait_for(lambda: "two" in supervised.out.read_text(), "output")
        assert supervised.end() == 0
        lines = supervised.out.read_text().splitlines()
        assert [line.split(" ", 2)[2] for line in lines] == ["web: one", "web: two", "web: three"]
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} web: one", lines[0])

    def test_a_file_each_opened_anew_on_usr1(self, supervise: Start, bare_site: Site) -> None:
        folder = bare_site.folder / "logs"
        folder.mkdir()
        loud = "while :; do echo ho; sleep 0.02; done"
        supervised = supervise("--program", f"a: {loud}", "--program", f"b: {loud}", "--output-dir", str(folder))
        for name in ("a", "b"):
            path = folder / f"{name}.log"
            wait_for(partial(has_lines, path), "a file each")
        (folder / "a.log").rename(folder / "a.log.1")
        os.kill(supervised.pid, signal.SIGUSR1)
        wait_for(partial(has_lines, folder / "a.log"), "a new file")
        supervised.end()
        for path in folder.iterdir():
            assert set(path.read_text().split("\n")) == {"ho", ""}

    def test_a_program_that_writes_without_end_hinders_nobody(self, supervise: Start) -> None:
        supervised = supervise(
            "--program", "loud: exec yes", "--program", "binary: exec cat /dev/zero", "--program", f"web: {NOTING}",
            "--output", "/dev/null",
        )  # fmt: skip
        pid = supervised.latest("web")
        os.kill(pid, signal.SIGKILL)
        supervised.latest("web", 2)
        assert supervised.end() == 0

    def test_a_reader_that_does_not_read_hinders_nobody(self, bare_site: Site) -> None:
        """Neither output nor what the supervisor itself has to say gets through: it goes on all the same."""
        notes = bare_site.folder / "notes"
        notes.mkdir()
        source, sink = os.pipe()
        words = ["--program", "loud: exec yes", "--program", f"web: {NOTING}"]
        process = subprocess.Popen(
            [bare_site.file, "supervise", "--nofork", *words, "--pid-file", str(bare_site.folder / "pid")],
            env={**bare_site.environment, "NOTES": str(notes)},
            stdout=sink,
            stderr=sink,
        )
        os.close(sink)
        try:
            for count in range(1, 5):
                wait_for(partial(started, notes / "web", count), f"the program to be started {count} times")
                os.kill(int((notes / "web").read_text().split()[-1]), signal.SIGKILL)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            os.close(source)


def has_lines(path: Path) -> bool:
    return path.exists() and path.read_text() != ""


def started(path: Path, count: int) -> bool:
    """Whether a program has noted so many processes there."""
    return path.exists() and len(path.read_text().split()) >= count


class TestSurroundings:
    def test_what_a_program_finds(self, supervise: Start, bare_site: Site) -> None:
        show = (
            'grep -E "^Sig(Blk|Ign)" /proc/self/status; pwd; umask; ulimit -Sn; ls -l /proc/$$/fd | grep -c -- "->"; '
            'ps -o pgid=,sid=,tpgid= -p $$ | tr -s " "; echo $$; echo "$IPCLOCKER_PROGRAM"; cat; sleep 1000'
        )
        supervised = supervise("--program", f"show: {show}", cwd=bare_site.folder, umask=0o027)
        wait_for(lambda: supervised.out.read_text().count("\n") >= 9, "what it shows")
        lines = [line.split("show: ", 1)[1] for line in supervised.out.read_text().splitlines()]
        import resource

        assert lines[0].split()[1] == lines[1].split()[1] == "0" * 16, "signals blocked or ignored"
        assert lines[2:6] == [
            str(bare_site.folder),
            "0027",
            str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            "3",
        ]
        group, session, _ = lines[6].split()
        assert group == session == lines[7], "it leads a session and a group"
        assert lines[8] == "show"

    def test_in_the_background(self, bare_site: Site) -> None:
        pid_file, log = bare_site.folder / "bg.pid", bare_site.folder / "log"
        notes = bare_site.folder / "notes"
        notes.mkdir()
        started = bare_site.run(
            "supervise", "--program", f"web: echo $PWD; {NOTING}", "--pid-file", "bg.pid", "--log-file", "log",
            env={**bare_site.environment, "NOTES": str(notes)}, cwd=bare_site.folder,
        )  # fmt: skip
        assert (started.returncode, started.stderr) == (0, "")
        guardian = int(pid_file.read_text())
        bare_site.ends_with(guardian)
        web = wait_for(lambda: (notes / "web").exists() and (notes / "web").read_text(), "the program")
        wait_for(lambda: f"INFO: web: {bare_site.folder}" in log.read_text(), "its output in the log")
        again = bare_site.run("supervise", "--program", "sleep 1", "--pid-file", pid_file)
        assert again.returncode == 64 and "already running" in again.stderr
        os.kill(guardian, signal.SIGTERM)
        all_gone([guardian, int(web)])
        assert not pid_file.exists()

    def test_names_in_the_background_are_of_the_callers_folder(self, bare_site: Site) -> None:
        folder = bare_site.folder
        for name, text in (("list", "one: ./run"), ("run", "#!/bin/sh\necho one\nexec sleep 1000\n")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        words = ["--file", "list", "--output", "out", "--pid-file", "pid", "--log-file", "log"]
        assert bare_site.run("supervise", *words, cwd=folder).returncode == 0
        guardian = int((folder / "pid").read_text())
        bare_site.ends_with(guardian)
        wait_for(partial(has_lines, folder / "out"), "output")
        (folder / "list").write_text("two: ./run")
        os.kill(guardian, signal.SIGHUP)
        wait_for(lambda: "two: one" in (folder / "out").read_text(), "the list to be read again")
        (folder / "out").rename(folder / "out.1")
        os.kill(guardian, signal.SIGUSR1)
        wait_for((folder / "out").exists, "output in a new file")
        os.kill(guardian, signal.SIGTERM)
        all_gone([guardian])

    def test_in_the_background_it_ends_too_when_one_is_given_up(self, bare_site: Site) -> None:
        pid_file, log = bare_site.folder / "pid", bare_site.folder / "log"
        words = ["--program", "bad: exit 1", "--give-up", "2/5", "--fatal-exit"]
        started = bare_site.run("supervise", *words, "--pid-file", pid_file, "--log-file", log)
        assert started.returncode == 0
        wait_for(lambda: not pid_file.exists(), "the end of the guardian")
        assert "the program 'bad' died too often (2/5)" in log.read_text()

    def test_killed_in_the_background_it_is_started_again(self, bare_site: Site) -> None:
        pid_file, log = bare_site.folder / "bg.pid", bare_site.folder / "log"
        bare_site.run("supervise", "--program", "sleep 77005.5", "--pid-file", pid_file, "--log-file", log)
        guardian = int(pid_file.read_text())
        bare_site.ends_with(guardian)
        first = wait_for(lambda: processes_with("sleep 77005.5"), "the program")[0]
        server = int(re.findall(r"supervise\[(\d+)\]", log.read_text())[-1])
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: [pid for pid in processes_with("sleep 77005.5") if pid != first], "the next")
        assert not is_alive(first)
        os.kill(guardian, signal.SIGKILL)
        wait_for(lambda: not processes_with("sleep 77005.5"), "the end of all")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pid namespace")
    def test_as_process_1(self, bare_site: Site) -> None:
        """In a container it is the first process: it reaps whatever comes, and ends when told."""
        if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode:
            pytest.skip("there are no namespaces here")
        notes = bare_site.folder / "notes"
        notes.mkdir()
        orphan = f"web: (setsid sh -c 'sleep 0.1' &); {NOTING}"
        process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", bare_site.file, "supervise", "--nofork",
             "--program", orphan, "--pid-file", bare_site.folder / "c.pid"],
            env={**bare_site.environment, "NOTES": str(notes)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        try:
            wait_for(lambda: (notes / "web").exists() and (notes / "web").read_text(), "the program")
            assert (bare_site.folder / "c.pid").read_text() == "1\n"
            first = wait_for(lambda: Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(), "process 1")
            os.kill(int(first), signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.communicate()
