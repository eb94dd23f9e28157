"""The one entry point: picks the tool from the name it was called by, or from the first word."""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the tool that `argv` names and exit with its code."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        _start_in_utf8()
    from .cli import run

    sys.exit(run(sys.argv))


def _start_in_utf8() -> NoReturn:
    """Start this program again, so that Python takes text for UTF-8 under any locale.

    So the words of the command line, the environment and the names of files are the text whose UTF-8 is what was
    given, and what is printed is UTF-8, too. The built file's first line asks for that, and then this is not needed.
    """
    from .daemon.reexec import own_words

    os.execv(sys.executable, [sys.executable, "-Xutf8", *own_words()])


if __name__ == "__main__":
    main()
