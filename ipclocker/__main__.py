"""The one entry point: picks the tool from the name it was called by, or from the first word."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the tool that `argv` names and exit with its code."""
    from .cli import run

    sys.exit(run(sys.argv))


if __name__ == "__main__":
    main()
