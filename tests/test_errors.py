"""The exceptions as Python people expect them: with the kinds of the standard library, picklable, and listed."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

import ipclocker
from ipclocker import errors

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", CLASSES)
def test_each_is_exported_and_pickles(kind: type[Exception]) -> None:
    assert getattr(ipclocker, kind.__name__) is kind and kind.__name__ in ipclocker.__all__
    error = kind("locked", "host:1") if kind is errors.ServerRefused else kind("some text")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and vars(again) == vars(error)


def test_an_exit_code_that_was_given_is_kept() -> None:
    again = pickle.loads(pickle.dumps(errors.UsageError("no", 5)))
    assert (str(again), again.exit_code) == ("no", 5)


def refuse() -> None:
    raise errors.ServerRefused("bad_locks", "host:1")


def test_a_refusal_comes_out_of_another_process() -> None:
    """It could not be made again there, and the pool waited for ever."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(errors.ServerRefused, match="host:1 refused the request: bad_locks") as raised:
            pool.submit(refuse).result(60)
        assert raised.value.word == "bad_locks"


def test_they_are_of_the_kinds_that_python_has_for_them() -> None:
    assert issubclass(errors.LockBusy, TimeoutError) and issubclass(errors.ServerUnavailable, ConnectionError)
    assert issubclass(errors.UsageError, ValueError) and issubclass(errors.NotHeld, RuntimeError)
    with pytest.raises(TimeoutError, match=r"^busy$"):
        raise errors.LockBusy("busy")


def test_the_names_show_in_dir() -> None:
    assert set(ipclocker.__all__) <= set(dir(ipclocker))
