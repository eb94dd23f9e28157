"""A running supervisor used: its list read again, its programs shown and told, their output, what they find."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from ..support.processes import all_gone, children, ignored_signals, is_alive, processes_with
from ..support.site import Site
from ..support.waiting import wait_for
from .supervising import NOTING, Start


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


# It is told the first while it runs, and the second while it has not ended: how it ends, and how often it was started.
@pytest.mark.parametrize(
    ("first", "second", "state", "starts"),
    [
        ("stop", "hup", "STOPPED", 1),
        ("stop", "start", "RUNNING", 2),
        ("stop", "restart", "RUNNING", 2),
        ("restart", "stop", "STOPPED", 1),
        ("restart", "hup", "RUNNING", 2),
        ("hup", "stop", "STOPPED", 1),
        ("hup", "restart", "RUNNING", 2),
        ("stop", "term", None, 1),
        ("hup", "term", None, 1),
    ],
)
def test_what_is_told_while_the_last_is_not_done(
    supervise: Start, first: str, second: str, state: str | None, starts: int
) -> None:
    deaf = 'trap "" TERM; echo $$ >> "$NOTES/deaf"; until [ -e "$NOTES/go" ]; do sleep 0.02; done; rm "$NOTES/go"'
    supervised = supervise("--program", f"deaf: {deaf}", "--stop-timeout", "1000")
    supervised.latest("deaf")
    signals = {"hup": signal.SIGHUP, "term": signal.SIGTERM}

    def was_told(count: int) -> bool:
        if second == "term" and count == 2:
            answer = supervised.site.run("supervise", "stop", "nosuch", "--pid-file", supervised.pid_file)
            return "the supervisor ends" in answer.stderr
        return len(re.findall(r"told to |the programs are restarted", supervised.tool.err)) == count

    for count, word in enumerate((first, second), 1):
        if word in signals:
            supervised.tool.process.send_signal(signals[word])
        else:
            supervised.site.start("supervise", word, "--pid-file", supervised.pid_file)
        wait_for(partial(was_told, count), f"it to be told: {word}")
        assert supervised.programs()["deaf"]["state"] == "STOPPING"
    (supervised.notes / "go").touch()
    if state is None:
        assert supervised.tool.end() == 0
    else:
        wait_for(lambda: supervised.programs()["deaf"]["state"] == state, f"{state}: {supervised.programs()}")
        (supervised.notes / "go").touch()
    assert len(supervised.noted("deaf")) == starts


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

        assert lines[0].split()[1] == "0" * 16, "signals blocked"
        assert ignored_signals(lines[1]) == 0, "signals ignored"
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
        monitor = int(pid_file.read_text())
        bare_site.ends_with(monitor)
        web = wait_for(lambda: (notes / "web").exists() and (notes / "web").read_text(), "the program")
        wait_for(lambda: f"INFO: web: {bare_site.folder}" in log.read_text(), "its output in the log")
        again = bare_site.run("supervise", "--program", "sleep 1", "--pid-file", pid_file)
        assert again.returncode == 64 and "already running" in again.stderr
        os.kill(monitor, signal.SIGTERM)
        all_gone([monitor, int(web)])
        assert not pid_file.exists()

    def test_names_in_the_background_are_of_the_callers_folder(self, bare_site: Site) -> None:
        folder = bare_site.folder
        for name, text in (("list", "one: ./run"), ("run", "#!/bin/sh\necho one\nexec sleep 1000\n")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        words = ["--file", "list", "--output", "out", "--pid-file", "pid", "--log-file", "log"]
        assert bare_site.run("supervise", *words, cwd=folder).returncode == 0
        monitor = int((folder / "pid").read_text())
        bare_site.ends_with(monitor)
        wait_for(partial(has_lines, folder / "out"), "output")
        (folder / "list").write_text("two: ./run")
        os.kill(monitor, signal.SIGHUP)
        wait_for(lambda: "two: one" in (folder / "out").read_text(), "the list to be read again")
        (folder / "out").rename(folder / "out.1")
        os.kill(monitor, signal.SIGUSR1)
        wait_for((folder / "out").exists, "output in a new file")
        os.kill(monitor, signal.SIGTERM)
        all_gone([monitor])

    def test_in_the_background_it_ends_too_when_one_is_given_up(self, bare_site: Site) -> None:
        pid_file, log = bare_site.folder / "pid", bare_site.folder / "log"
        words = ["--program", "bad: exit 1", "--give-up", "2/5", "--fatal-exit"]
        started = bare_site.run("supervise", *words, "--pid-file", pid_file, "--log-file", log)
        assert started.returncode == 0
        wait_for(lambda: not pid_file.exists(), "the end of the monitor")
        assert "the program 'bad' died too often (2/5)" in log.read_text()

    def test_killed_in_the_background_it_is_started_again(self, bare_site: Site) -> None:
        """With its programs, but for those that somebody has stopped."""
        pid_file, log = bare_site.folder / "bg.pid", bare_site.folder / "log"
        words = ["--program", "sleep 77005.5", "--program", "off: sleep 77006.5", "--program", "again: sleep 77007.5"]
        bare_site.run("supervise", *words, "--pid-file", pid_file, "--log-file", log)
        monitor = int(pid_file.read_text())
        bare_site.ends_with(monitor)
        first = wait_for(lambda: processes_with("sleep 77005.5"), "the program")[0]
        for told in (["stop", "off", "again"], ["start", "again"]):
            bare_site.run("supervise", *told, "--pid-file", pid_file)
        server = int(re.findall(r"supervise\[(\d+)\]", log.read_text())[-1])
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: [pid for pid in processes_with("sleep 77005.5") if pid != first], "the next")
        assert not is_alive(first)
        shown = bare_site.run("supervise", "status", "--pid-file", pid_file).stdout
        assert re.search(r"^off +STOPPED .*\nagain +(STARTING|RUNNING) ", shown, re.MULTILINE), shown
        os.kill(monitor, signal.SIGKILL)
        wait_for(lambda: not processes_with("sleep 77005.5"), "the end of all")
        wait_for(lambda: not (bare_site.folder / "bg.sock").exists(), "the end of the supervisor")

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
            first = wait_for(lambda: children(process.pid), "process 1")[0]
            os.kill(first, signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.communicate()
