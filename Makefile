PYTHON ?= python3
SOURCES := $(shell find ipclocker -name __pycache__ -prune -o -print)

demo: dist/ipclocker
	tests/demo.sh

# Thousands of real processes: on a busy machine one of them is late at times. What has failed is run once more, alone, and
# has to pass; but for what a proof has found, which need not happen again (tests/conftest.py). Each start of a tool from
# the sources would compile them if Python kept no bytecode.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/ready dist/ipclocker
	.venv/bin/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder || \
	    { [ $$? = 1 ] && .venv/bin/python -m pytest --last-failed; }

check: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# All of it takes some ten minutes. SHORT=1: some seconds, to see that it runs. BENCH="locks pid": only these.
bench: .venv/ready dist/ipclocker
	SHORT="$(SHORT)" .venv/bin/python -m tests.bench $(BENCH)

# SEED=1 SECONDS=600: from these dice, for so long.
torture: .venv/ready dist/ipclocker
	.venv/bin/python -m tests.proof --seed="$(SEED)" --seconds="$(SECONDS)"

clean:
	rm -rf .venv build dist *.egg-info .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --editable '.[dev]'
	touch .venv/ready

dist/ipclocker: $(SOURCES) build.sh pyproject.toml .venv/ready
	PYTHON=.venv/bin/python ./build.sh

.PHONY: demo test check bench torture clean
