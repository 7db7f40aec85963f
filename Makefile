# make demo   reconstructs a bundled photo and says where to look
# make test   runs the tests that take seconds each; test-all adds the slow ones
#
# Both set up .venv once. Choose another Python with PYTHON=..., and another
# source of torch with TORCH_INDEX=... (see "setup" below).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
TORCH_INDEX ?=
TORCH_FROM = $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

# Larger data for the tests that want it; without it they skip.
ifndef UNFLAT_DATA
ifneq ($(wildcard ../shared/data),)
export UNFLAT_DATA := $(abspath ../shared/data)
endif
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-all setup lint bench docs

help:
	@echo "make demo      reconstruct a bundled photo, say where to look"
	@echo "make test      run the tests (test-all: the slow ones too)"
	@echo "make setup     .venv with everything for development"
	@echo "make lint      formatting, lint, types"
	@echo "make bench     measure speed and memory on this machine (some 20 minutes)"
	@echo "make docs      build the pages into docs/_build/html"

# torch comes first and in one exact version: everything after it must not replace it.
$(VENV)/.torch:
	@echo "setup 1/3: new Python environment in $(VENV) (once)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"{sys.executable} is Python {v[0]}.{v[1]}; unflat needs 3.11 to 3.13: make PYTHON=/path/to/python3.11 ...")'
	@$(PYTHON) -m venv $(VENV)
	@echo "setup 2/3: $(TORCH), the largest part (once)"
	@command -v nvidia-smi >/dev/null 2>&1 || [ -n "$(TORCH_INDEX)" ] || \
		echo "           no NVIDIA GPU seen; if this loads gigabytes of CUDA, the smaller build is:" \
		"make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_FROM) $(TORCH)
	@touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "setup 3/3: unflat and what it needs (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "setup 3/3: unflat with its development tools (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,train,video]"
	@touch $@ $(VENV)/.core

setup: $(VENV)/.dev
	@echo "ready: $(BIN)/unflat --help"

demo: $(VENV)/.core
	@$(BIN)/python -m unflat demo --force

test: $(VENV)/.dev
	@echo "running the tests that take seconds each"
	@$(BIN)/python -m pytest -q -m "not slow"

test-all: $(VENV)/.dev
	@echo "running all tests"
	@$(BIN)/python -m pytest -q

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --warnings --pythonpath $(BIN)/python

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.rendering
	@$(BIN)/python -m benchmarks.speed

docs: $(VENV)/.dev
	@$(BIN)/sphinx-build -W -n --keep-going -q docs docs/_build/html
	@echo "open docs/_build/html/index.html"
