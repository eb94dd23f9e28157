"""Where log records go, and what they look like there."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker.daemon import log
from ipclocker.errors import UsageError

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
logger = logging.getLogger("ipclocker.test")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, raises = logging.getLogger(), logging.raiseExceptions
    level, handlers = root.level, list(root.handlers)
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.raiseExceptions = raises


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    log.set_up("fake", foreground=False, log_file=str(path), debug=False)
    return path


# One line per record


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain text, äöü", "plain text, äöü"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("a terminal's \x1b[2J and \x9b2J", "a terminal's \\x1b[2J and \\x9b2J"),
        ("nothing\0\x7f", "nothing\\x00\\x7f"),
        ("other line ends \x85\u2028\u2029", "other line ends \\x85\\u2028\\u2029"),
        ("backwards \u202e", "backwards \\u202e"),
        ("half a character \udcff", "half a character \\udcff"),
        ("x" * 8192, "x" * 8192),
        ("x" * 8193, "x" * 8189 + "..."),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert log.one_line(text) == line


def test_a_traceback_is_one_line_too(log_file: Path) -> None:
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        logger.exception("it failed")
    text = log_file.read_text()
    assert text.count("\n") == 1
    assert "it failed\\nTraceback" in text
    assert "ValueError: bad\\nvalue" in text


# stderr


def test_foreground_logs_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("100%", foreground=True, log_file=None, debug=False)
    logger.info("listening on %s", "a\nport")
    logger.debug("not asked for")
    line = rf"{TIME} 100%\[{os.getpid()}\] INFO: listening on a\\nport\n"
    assert re.fullmatch(line, capfd.readouterr().err)


def test_debug(capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("fake", foreground=True, log_file=None, debug=True)
    logger.debug("asked for")
    assert "DEBUG: asked for\n" in capfd.readouterr().err


def test_set_up_again_replaces_the_place(log_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("fake", foreground=True, log_file=None, debug=False)
    logger.info("once")
    assert capfd.readouterr().err.count("once") == 1
    assert log_file.read_text() == ""


def test_the_journal_gets_priorities_and_no_time(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{stderr.st_dev}:{stderr.st_ino}")
    log.set_up("fake", foreground=True, log_file=None, debug=True)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logger.log(level, "text")
    assert capfd.readouterr().err == "<7>text\n<6>text\n<4>text\n<3>text\n<2>text\n"


def test_stderr_that_is_not_the_journal_though_our_parent_had_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    log.set_up("fake", foreground=True, log_file=None, debug=False)
    logger.info("text")
    assert re.match(TIME, capfd.readouterr().err)


def test_stderr_that_nobody_reads_changes_nothing() -> None:
    program = (
        "import logging; from ipclocker.daemon import log\n"
        "log.set_up('fake', foreground=True, log_file=None, debug=False)\n"
        "input(); logging.info('text')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stderr.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait(20) == 0


# A file


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    log.set_up("fake", foreground=True, log_file=str(path), debug=False)
    logger.warning("text")
    assert re.fullmatch(rf"before\n{TIME} fake\[{os.getpid()}\] WARNING: text\n", path.read_text())


@pytest.mark.parametrize("moved", [True, False])
def test_a_rotated_file_is_opened_anew(log_file: Path, moved: bool) -> None:
    logger.info("first")
    if moved:
        log_file.rename(log_file.with_suffix(".1"))
    else:
        log_file.unlink()
    logger.info("second")
    assert log_file.read_text().count("\n") == 1
    assert "second" in log_file.read_text()


def test_a_file_replaced_by_another_is_followed(log_file: Path) -> None:
    log_file.rename(log_file.with_suffix(".1"))
    log_file.touch()
    logger.info("text")
    assert "text" in log_file.read_text()


def test_a_file_that_cannot_be_opened_anew_is_tried_at_each_record(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log.set_up("fake", foreground=False, log_file=str(folder / "log"), debug=False)
    folder.rename(tmp_path / "moved")
    logger.info("first")
    assert "first" in (tmp_path / "moved" / "log").read_text()
    folder.mkdir()
    logger.info("second")
    assert "second" in (folder / "log").read_text()


def test_a_relative_name_means_the_folder_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log.set_up("fake", foreground=False, log_file="log", debug=False)
    (tmp_path / "log").unlink()
    monkeypatch.chdir("/")
    logger.info("text")
    assert "text" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", [".", "missing/log"])
def test_an_unwritable_file_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(f"the log file {name} cannot be written")):
        log.set_up("fake", foreground=False, log_file=name, debug=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("fake", foreground=True, log_file="/dev/full", debug=False)
    logger.error("text")
    assert capfd.readouterr() == ("", "")


def test_a_record_that_cannot_be_formatted_is_no_error(
    log_file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest's own handler would raise.
    monkeypatch.setattr(logging.getLogger(), "handlers", logging.getLogger().handlers[-1:])
    logger.error("%d", "no number")
    assert log_file.read_text() == ""
    assert capfd.readouterr() == ("", "")


# syslog


@pytest.fixture
def syslog_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(log, "SYSLOG", str(tmp_path / "syslog"))
    return tmp_path / "syslog"


def listen(path: Path) -> socket.socket:
    syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    syslog.settimeout(20)
    syslog.bind(str(path))
    return syslog


def test_background_logs_to_syslog(syslog_path: Path) -> None:
    with listen(syslog_path) as syslog:
        log.set_up("fake", foreground=False, log_file=None, debug=True)
        for level, priority in ((10, 31), (20, 30), (30, 28), (40, 27), (50, 26)):  # daemon is facility 3
            logger.log(level, "two\nlines")
            assert syslog.recv(1000).decode() == f"<{priority}>fake[{os.getpid()}]: two\\nlines"


def test_syslog_that_is_restarted(syslog_path: Path) -> None:
    with listen(syslog_path) as syslog:
        log.set_up("fake", foreground=False, log_file=None, debug=False)
        logger.info("first")
        assert b"first" in syslog.recv(1000)
    logger.info("lost")
    syslog_path.unlink()
    logger.info("lost")
    with listen(syslog_path) as syslog:
        logger.info("second")
        assert b"second" in syslog.recv(1000)


def test_no_syslog_at_all(syslog_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("fake", foreground=False, log_file=None, debug=False)
    logger.error("text")
    assert capfd.readouterr() == ("", "")


def test_syslog_that_does_not_read_holds_nobody_up(syslog_path: Path) -> None:
    program = (
        "import logging, sys; from ipclocker.daemon import log\n"
        "log.SYSLOG = sys.argv[1]\n"
        "log.set_up('fake', foreground=False, log_file=None, debug=False)\n"
        "for number in range(10000): logging.info('x' * 1000)\n"
    )
    with listen(syslog_path):
        subprocess.run([sys.executable, "-c", program, str(syslog_path)], timeout=20, check=True)


def test_light_imports() -> None:
    program = (
        "import sys, ipclocker.daemon.daemonize\n"
        "heavy = {'logging.handlers', 'subprocess', 'asyncio', 'random'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=20, check=True)
