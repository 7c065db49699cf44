# make demo    install into .venv, run notebooks/00_tour.ipynb, print where notebook and report are
# make test    the same environment, then every test
# make lab     JupyterLab on notebooks/
# make lint    format, lint, types, notebooks without outputs
# make clean   remove .venv and caches; runs/ and out/ stay
#
# PYTHON=python3.12        another interpreter, 3.11 or newer
# PIP_ARGS="--index-url …" options of pip install, such as an index that has the CPU build of torch
# ARGS="-k resume"         options of the command behind the target; -n 0 for one test at a time

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
LOG := $(VENV)/install.log
NOTEBOOKS = $(wildcard notebooks/*.ipynb)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help demo test lab lint clean env

help:
	@sed -n -e '/^$$/q' -e 's/^# //p' -e 's/^#$$//p' Makefile

env: $(READY)

demo: $(READY)
	@$(BIN)/workbench demo $(ARGS)

# A process a core, each with one thread; all tests of a file in the same one.
test: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lab: $(READY)
	@$(BIN)/jupyter lab --notebook-dir=notebooks $(ARGS)

lint: $(READY)
	@echo "format"; $(BIN)/ruff format --check .
	@echo "lint"; $(BIN)/ruff check .
	@echo "types"; $(BIN)/pyright
	@echo "notebooks"; test -z "$(NOTEBOOKS)" || $(BIN)/nbstripout --verify --keep-id $(NOTEBOOKS) \
	  || { echo "outputs are stored: run $(BIN)/nbstripout --keep-id $(NOTEBOOKS)"; exit 1; }

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find workbench tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than pyproject.toml exactly when the environment matches it.
$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, \
	or name one with make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) --version) is too old: install Python 3.11 or newer, or name one with" \
	    "make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot create $(VENV): install its venv module (Debian: python3-venv)"; exit 1; }
	@echo "Installing into $(VENV) with $$($(BIN)/python --version); minutes the first time, log: $(LOG)"
	@$(BIN)/python -m pip install $(PIP_ARGS) -e '.[dev]' 2>&1 | tee $(LOG) \
	  | awk -v live=$$(test -t 2 && echo 1) 'live && /^ *(Collecting|Downloading|Building|Installing)/ { n++; \
	      printf "\r\033[K  %d %s", n, substr($$1 " " $$2, 1, 70); fflush() } \
	      END { if (live) printf "\r\033[K" }' \
	  || { tail -n 15 $(LOG); echo "pip install failed: the whole log is $(LOG)"; exit 1; }; \
	  echo "Installed in $$SECONDS s"
	@touch $@
