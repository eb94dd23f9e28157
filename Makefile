PYTHON ?= python3
SOURCES := $(shell find ipclocker -name __pycache__ -prune -o -print)

demo: dist/ipclocker
	tests/demo.sh

test: .venv/ready dist/ipclocker
	.venv/bin/python -m pytest -n 4 --dist loadfile

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
