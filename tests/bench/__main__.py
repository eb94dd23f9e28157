"""All benchmarks, one after the other: what `make bench` runs. Each prints its figures; the lines say their units.

    python -m tests.bench [NAME ...]

With SHORT=1 in the environment all of it takes seconds and its figures mean nothing: it shows only that they run.
"""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = (
    "commands",
    "etcd",
    "library",
    "locks",
    "pid",
    "prefork",
    "startup",
    "supervise",
)  # the other modules help them


def main(names: list[str]) -> None:
    """Run those of these names, or all; SystemExit if one is unknown."""
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        raise SystemExit(f"bench: no benchmark '{min(unknown)}', there are: {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        import_module(f"{__package__}.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
