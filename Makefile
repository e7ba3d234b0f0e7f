# One command each: setup, demo, test. Everything lands in ./.venv and in $PRIVET_HOME (default ./.privet).
# pip's own configuration (PIP_FIND_LINKS, index settings, pip.conf) is honoured: a CPU build of torch that it
# finds is taken. Without a GPU, no CUDA package is ever installed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
export PRIVET_HOME ?= $(CURDIR)/.privet
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_OFFLINE := 1

.PHONY: setup demo test test-all lint lock clean help
help:
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready ## make ./.venv with every pinned dependency

$(VENV)/.ready: requirements.lock requirements-cuda.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else "Privet needs Python 3.11, 3.12 or 3.13; this is " + sys.version.split()[0] + ". Pass another: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (a few minutes the first time) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps "pip==$$(sed -n 's/^pip==\([0-9.]*\).*/\1/p' requirements.lock)"
	@if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then \
	  echo "A GPU is here: installing torch $(TORCH) with CUDA"; \
	  $(BIN)/python -m pip install --quiet --no-deps "torch==$(TORCH)" && \
	  $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-cuda.lock; \
	elif [ "$$(uname -s)" = Darwin ]; then \
	  $(BIN)/python -m pip install --quiet --no-deps "torch==$(TORCH)"; \
	else \
	  $(BIN)/python -m pip install --quiet --no-deps "torch==$(TORCH)+cpu" 2>/dev/null || \
	  $(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_CPU_INDEX) "torch==$(TORCH)+cpu"; \
	fi
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pip install --quiet --no-deps --compile --require-hashes -r requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## raw logs in, a released and verified model out, as an Airflow DAG
	$(BIN)/privet demo --home "$(PRIVET_HOME)"

test: setup ## the tests, without the slow end-to-end parts
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

test-all: setup ## all tests, a live scheduler included
	$(BIN)/python -m pytest

lint: setup ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lock: ## resolve requirements.in anew (needs uv)
	cat requirements.lock requirements-cuda.lock > requirements.all  # what is locked stays, unless requirements.in says otherwise
	uv pip compile --universal --python-version 3.11 --no-emit-package torch --generate-hashes --override requirements.overrides requirements.in -o requirements.all
	$(PYTHON) -c 'import re,pathlib; b=re.split(r"\n(?=[A-Za-z0-9])", pathlib.Path("requirements.all").read_text().strip()); c=[x for x in b if re.match("(cuda-|nvidia-|triton)", x)]; pathlib.Path("requirements-cuda.lock").write_text("\n".join(c)+"\n"); pathlib.Path("requirements.lock").write_text("\n".join(x for x in b if x not in c)+"\n")'
	rm requirements.all

clean: ## remove ./.venv and caches; never the home with its state
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
