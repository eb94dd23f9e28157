"""What the tests with real processes share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.site import Site, new_site
from .supervising import Start, Supervised


@pytest.fixture
def bare_site(built_file: Path, cache: Path) -> Iterator[Site]:
    """A site without a server."""
    with new_site(built_file, cache) as site:
        yield site


@pytest.fixture
def site(bare_site: Site) -> Site:
    """A site with a lock server on a UNIX socket."""
    bare_site.serve()
    return bare_site


@pytest.fixture(scope="module")
def shared_site(built_file: Path, cache: Path) -> Iterator[Site]:
    """A site with a lock server for tests that leave no lock behind."""
    with new_site(built_file, cache) as site:
        site.serve()
        yield site


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
