"""What programs write, on its way from their pipes to where it belongs."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ipclocker.errors import UsageError
from ipclocker.net.loop import Loop
from ipclocker.supervise.output.collector import OutputCollector
from ipclocker.supervise.output.nonblocking_writer import NonblockingWriter
from ipclocker.supervise.output.sinks import LineSink, Sink, to_file, to_files, to_log

from ...support.waiting import turn_until

LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (.*)")


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def texts(path: Path) -> list[str]:
    """The lines of a file without their times."""
    found = []
    for line in path.read_bytes().splitlines():
        matched = LINE.fullmatch(line)
        assert matched is not None, line
        found.append(matched[1].decode())
    return found


def write(output: OutputCollector, name: str, *pieces: bytes) -> None:
    """A program that writes this and ends."""
    descriptor = output.open(name)
    for piece in pieces:
        os.write(descriptor, piece)
    os.close(descriptor)


def test_lines_with_names_and_times(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "out"
    output = OutputCollector(loop, partial(to_file, str(path)))
    web, mail = output.open("web"), output.open("mail")
    os.write(web, b"one\ntwo")
    turn_until(loop, lambda: path.read_bytes(), "the first line")
    assert texts(path) == ["web: one"]
    os.write(mail, b"mail\n")
    turn_until(loop, lambda: len(texts(path)) == 2, "the second program's line")
    os.close(web)
    turn_until(loop, lambda: len(texts(path)) == 3, "a last line without an end")
    os.close(mail)
    output.close()
    assert texts(path) == ["web: one", "mail: mail", "web: two"]


def test_what_was_written_last_is_taken_at_the_end(loop: Loop, tmp_path: Path) -> None:
    output = OutputCollector(loop, partial(to_file, str(tmp_path / "out")))
    held = output.open("held")  # by a process that is left
    os.write(held, b"a\nb")
    write(output, "web", b"x" * 50_000)
    output.close()
    os.close(held)
    lines = texts(tmp_path / "out")
    assert lines[:2] == ["held: a", "held: b"]
    assert sum(line.count("x") for line in lines) == 50_000


def test_files_are_opened_anew(loop: Loop, tmp_path: Path) -> None:
    path, moved = tmp_path / "out", tmp_path / "out.1"
    output = OutputCollector(loop, partial(to_file, str(path)))
    write(output, "web", b"one\n")
    turn_until(loop, lambda: path.read_bytes(), "the first line")
    path.rename(moved)
    write(output, "web", b"two\n")
    turn_until(loop, lambda: len(texts(moved)) == 2, "a line in the file that was moved away")
    output.reopen()
    write(output, "web", b"three\n")
    turn_until(loop, lambda: path.read_bytes(), "a line in the new file")
    output.close()
    assert (texts(moved), texts(path)) == (["web: one", "web: two"], ["web: three"])


def test_a_file_that_cannot_be_opened_anew_is_gone_on_with(loop: Loop, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    output = OutputCollector(loop, partial(to_file, str(folder / "out")))
    folder.rename(tmp_path / "moved")
    output.reopen()
    write(output, "web", b"one\n")
    turn_until(loop, lambda: (tmp_path / "moved" / "out").read_bytes(), "the line")
    output.close()


def test_a_file_for_each_program(loop: Loop, tmp_path: Path) -> None:
    output = OutputCollector(loop, partial(to_files, str(tmp_path)))
    write(output, "web", b"one\n\0\xff", b"\r\nno end")
    write(output, "mail", b"mail\n")
    write(output, "web", b" of it\n")
    web, mail = tmp_path / "web.log", tmp_path / "mail.log"
    turn_until(loop, lambda: mail.exists() and mail.read_bytes() and web.read_bytes().endswith(b"it\n"), "the files")
    web.rename(tmp_path / "web.log.1")
    output.reopen()
    write(output, "web", b"two\n")
    turn_until(loop, lambda: web.read_bytes(), "the new file")
    output.close()
    assert (tmp_path / "web.log.1").read_bytes() == b"one\n\0\xff\r\nno end of it\n"
    assert (web.read_bytes(), mail.read_bytes()) == (b"two\n", b"mail\n")


def test_places_that_cannot_be_written(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the output file /nonexistent/x can't be written"):
        OutputCollector(loop, partial(to_file, "/nonexistent/x"))
    for folder in ("/nonexistent", "/dev/null"):
        with pytest.raises(UsageError, match=f"no files can be made in the output folder {folder}"):
            OutputCollector(loop, partial(to_files, folder))
    assert not any(tmp_path.iterdir())


def test_lines_in_the_log(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    output = OutputCollector(loop, to_log)
    write(output, "web", b"one\n\xff\n", b"two")
    turn_until(loop, lambda: len(caplog.messages) == 3, "three lines")
    output.close()
    assert caplog.messages == ["web: one", "web: \\xff", "web: two"]


def test_a_full_disk_costs_lines_and_is_told_once(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    output = OutputCollector(loop, partial(to_file, "/dev/full"))
    for _ in range(3):
        write(output, "web", b"one\n")
        turn_until(loop, lambda: caplog.messages, "the complaint")
    output.close()
    assert len(caplog.messages) == 1
    assert "/dev/full can't be written (No space left on device)" in caplog.messages[0]


class TestAPlaceThatIsFull:
    """A reader that does not read: the programs wait, nothing piles up, nothing is lost."""

    @pytest.fixture(params=["pipe", "socket"])
    def reader(self, request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
        """The reader's descriptor and the writer's; what is written to may be a pipe, or a socket that blocks."""
        if request.param == "pipe":
            ends = os.pipe()
            os.set_blocking(ends[1], False)
        else:
            ours, theirs = socket.socketpair()
            ends = ours.detach(), theirs.detach()
        yield ends
        os.close(ends[0])

    def test_waits(self, loop: Loop, reader: tuple[int, int]) -> None:
        source, sink = reader
        writers: list[NonblockingWriter] = []

        def make(loop: Loop, drained: object) -> Sink:
            writers.append(NonblockingWriter(loop, "the test", lambda: sink, drained))  # type: ignore[arg-type]
            return LineSink(writers[0])

        output = OutputCollector(loop, make)
        chatter = output.open("chatter")
        os.set_blocking(chatter, False)
        written = 0
        for _ in range(200):
            loop.turn(0.0)
            for _ in range(100):
                try:
                    os.write(chatter, b"%06d %s\n" % (written, b"x" * 992))
                except BlockingIOError:
                    break
                written += 1
        assert writers[0].is_full
        assert 0 < written < 10_000, "it has to wait some time"
        os.close(chatter)
        heard = b""
        os.set_blocking(source, False)

        def hear() -> bool:
            nonlocal heard
            try:
                heard += os.read(source, 1 << 20)
            except BlockingIOError:
                return False
            return heard.count(b"\n") >= written

        turn_until(loop, hear, "all lines")
        numbers = [int(line.split()[3]) for line in heard.splitlines()]
        assert numbers == list(range(written))
        output.close()

    def test_does_not_hinder_the_end(self, loop: Loop, reader: tuple[int, int]) -> None:
        _, sink = reader
        output = OutputCollector(
            loop, lambda loop, drained: LineSink(NonblockingWriter(loop, "the test", lambda: sink, drained))
        )
        chatter = output.open("chatter")
        os.set_blocking(chatter, False)
        with pytest.raises(BlockingIOError):
            while True:
                loop.turn(0.0)
                os.write(chatter, b"x" * 1000)
        output.close()
        os.close(chatter)


def test_a_reader_that_is_gone(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    source, sink = os.pipe()
    os.close(source)
    output = OutputCollector(
        loop, lambda loop, drained: LineSink(NonblockingWriter(loop, "the test", lambda: sink, drained))
    )
    write(output, "web", b"one\n" * 10)
    turn_until(loop, lambda: caplog.messages, "the complaint")
    assert "the test can't be written (Broken pipe)" in caplog.messages[0]
    output.close()


def test_earlier_lives_that_keep_their_pipes_are_cut_off(loop: Loop, tmp_path: Path) -> None:
    """Each start leaves a pipe behind if something holds it: they must not be without bound."""
    before = len(os.listdir("/dev/fd"))
    output = OutputCollector(loop, partial(to_file, str(tmp_path / "out")))
    held = [output.open("web") for _ in range(30)]
    for number, descriptor in enumerate(held[-5:]):
        os.write(descriptor, b"%d\n" % number)
    turn_until(loop, lambda: len(texts(tmp_path / "out")) == 5, "the latest")
    for descriptor in held:
        os.close(descriptor)
    assert len(os.listdir("/dev/fd")) < before + 12
    output.close()
