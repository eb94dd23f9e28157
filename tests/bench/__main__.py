"""All benchmarks, one after the other: each module of this folder that has a `main` prints its figures from it."""

from importlib import import_module
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    module = import_module(f"{__package__}.{path.stem}")
    if hasattr(module, "main"):
        module.main()
