# One word per chore. `make demo` and `make test` need only make and Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= 2
# Which tests `make test` runs, as pytest's -m says it; empty: all of them.
MARKERS ?= not slow and not browser

BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
TYPES := build/typecheck

.DEFAULT_GOAL := help
.PHONY: help demo samples test test-slow test-all lint types bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## Train the demo and watch it live (ARGS=--headless: without the dashboard)
	$(BIN)/trainvitals demo $(ARGS)

samples: $(RUNTIME) ## Train every sample run over its seeds and write docs/phenomena.md (ARGS=NAME: one; nightly)
	OMP_NUM_THREADS=1 $(BIN)/python -m trainvitals.sample_runs.nightly $(ARGS)

# One thread a worker: runs repeat bit for bit, and the workers do not fight over the cores.
test: $(DEV) ## Run the fast tests (MARKERS= runs all, ARGS go to pytest)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "$(MARKERS)" $(ARGS)

test-slow: ## Run the slow tests and those that drive a browser
	@$(MAKE) test MARKERS="slow or browser"

test-all: ## Run every test
	@$(MAKE) test MARKERS=

lint: $(DEV) ## Check style and docstrings
	$(BIN)/ruff check .

# Pyright does not follow the mapping of diagnostics/ and probes/ into the package: it reads the built package.
types: $(DEV) ## Check types
	rm -rf $(TYPES) build/lib
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target $(TYPES) .
	rm -rf build/lib
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python $(TYPES)/trainvitals

bench: $(DEV) ## Run every benchmark, one after the other
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script $(ARGS); done

clean: ## Remove the environment and everything built; recorded runs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "expected Python 3.11 or newer, got $$($(PYTHON) --version 2>&1) from PYTHON=$(PYTHON);" \
	  "try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The build runs in the environment itself, so that nothing but the pinned files is fetched.
$(RUNTIME): $(BIN)/pip requirements.txt pyproject.toml
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@
