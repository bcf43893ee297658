# The README uses `make demo` and `make test`. Both first create a virtual environment in .venv.
VENV ?= .venv
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && command -v $$python && break; done)
BIN := $(VENV)/bin

.PHONY: demo test torture check format install install-own-torch clean

demo: $(VENV)/installed
	$(BIN)/protenix-ms predict examples/7r6r.json --seeds 1-3 --model demo --out demo-output

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Tests too slow to run on every change: 30 kills, 8 processes on one folder, faults of a cluster of several nodes,
# 20,000 fuzzed inputs, 200 jobs in one run.
torture: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow
	PROTENIX_MS_KILLS=30 PROTENIX_MS_PROCESSES=8 $(BIN)/python -m pytest tests/end_to_end/test_resume.py
	PROTENIX_MS_EXAMPLES=3000 $(BIN)/python -m pytest tests/unit/test_fuzz.py
	$(BIN)/python scripts/many_jobs.py --jobs 200

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@for folder in configs scripts tests; do test ! -e $$folder/__init__.py || \
		{ echo "$$folder/__init__.py hides the package of the same name that Protenix installs: remove it"; exit 1; }; done

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/installed

# For a host that brings its own PyTorch: install into the active environment, without Protenix's version pins.
install-own-torch:
	python3 -c 'import torch'
	python3 -m pip install --no-deps -r requirements-own-torch.txt
	python3 -m pip install hatchling
	python3 -m pip install --no-deps --no-build-isolation .

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed (make PYTHON=/path/to/python3.11)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) demo-output
