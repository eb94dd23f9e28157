"""Signals as kill(1) is told them."""

from __future__ import annotations

import signal

import pytest

from ipclocker.errors import UsageError
from ipclocker.process.signal_names import signal_name, signal_number


@pytest.mark.parametrize("text", ["HUP", "SIGHUP", "-HUP", "-SIGHUP", "hup", "sighup", "1", "-1"])
def test_one_signal_in_all_its_forms(text: str) -> None:
    assert signal_number(text) == signal.SIGHUP


@pytest.mark.parametrize("number", sorted(map(int, signal.valid_signals())))
def test_there_and_back(number: int) -> None:
    assert signal_number(str(number)) == signal_number(f"-{signal_name(number)}") == number


@pytest.mark.parametrize(("text", "number"), [("RTMIN+3", signal.SIGRTMIN + 3), ("-SIGRTMAX-2", signal.SIGRTMAX - 2)])
def test_real_time(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "--",
        "--HUP",
        "SIG",
        "0",
        "-0",
        "65",
        "1.5",
        "1_0",
        "\u0661",
        "HUPP",
        "_DFL",
        "RTMIN+31",
        "RTMIN-1",
        "RTMIN+",
        "RTMAX-x",
    ],
)
def test_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not known"):
        signal_number(text)
