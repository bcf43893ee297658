# The README uses `make demo` and `make test`. Both first create a virtual environment in .venv. `make demo-cpu` makes a
# smaller one in .venv-cpu, with PyTorch's builds for CPUs, which bring no CUDA libraries.
VENV ?= .venv
CPU_VENV ?= .venv-cpu
CPU_TORCH ?= torch --index-url https://download.pytorch.org/whl/cpu
OWN_PYTHON ?= python3
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && command -v $$python && break; done)
BIN := $(VENV)/bin

.PHONY: demo demo-cpu test torture check format install install-own-torch clean

demo: $(VENV)/installed
	$(BIN)/protenix-ms predict examples/1brs.json --seeds 1-3 --model demo --out demo-output

demo-cpu: $(CPU_VENV)/installed
	$(CPU_VENV)/bin/protenix-ms predict examples/1brs.json --seeds 1-3 --model demo --out demo-output

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

# For a host that brings its own PyTorch: install into the environment of OWN_PYTHON. PyTorch stays as it is, and so do
# the packages named here; if one of them is too old, pip refuses. Protenix's own pins are left out.
install-own-torch:
	$(OWN_PYTHON) -c 'import torch'
	mkdir -p build
	$(OWN_PYTHON) -m pip list --format=freeze | grep -E '^(numpy|pandas|scikit-learn|scipy|torch|triton)==' > build/own.txt
	$(OWN_PYTHON) -m pip install --requirement requirements-own-torch.txt --constraint build/own.txt
	$(OWN_PYTHON) -m pip install --no-deps $(shell sed -n 's/^ *"\(protenix==[^"]*\)",$$/\1/p' pyproject.toml) .

$(VENV)/bin/python $(CPU_VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed (make PYTHON=/path/to/python3.11)"; exit 1; }
	$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo 'Installing into $(VENV): 6.7 GB, 6 minutes or more. Without a GPU, "make demo-cpu" needs 1.8 GB.'
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo 'Installing into $(VENV), with the tools of the tests: 7.5 GB, 7 minutes or more.'
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@ $(VENV)/installed

$(CPU_VENV)/installed: pyproject.toml requirements-own-torch.txt | $(CPU_VENV)/bin/python
	@echo 'Installing into $(CPU_VENV): 1.8 GB.'
	$(CPU_VENV)/bin/python -m pip install $(CPU_TORCH)
	$(MAKE) install-own-torch OWN_PYTHON=$(CPU_VENV)/bin/python
	@touch $@

clean:
	rm -rf $(VENV) $(CPU_VENV) build demo-output
