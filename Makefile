# The gardener's commands. Everything they need, but Python and make, they install into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint format screenshots clean

help:  ## Show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(INSTALLED)  ## Run the whole pipeline on this machine, with sample archives
	@$(BIN)/gardener demo

test: $(INSTALLED) lint  ## Check layers, style and types, then run all tests
	@$(BIN)/pytest -n 3 --no-loadscope-reorder  # on two cores: the tests of processes mostly wait

lint: $(INSTALLED)  ## Check layers, style and types
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

screenshots: $(INSTALLED)  ## Take the pictures of README.md; needs Chromium, PostgreSQL, Prometheus
	@PYTHONPATH=tests/support $(BIN)/python tests/by_hand/screenshots.py

format: $(INSTALLED)  ## Format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

clean:  ## Remove the environment and all local data
	rm -rf $(VENV) .gardener build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A marker that is older than pyproject.toml installs again.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "The gardener needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV) (about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
