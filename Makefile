# The gardener's commands. Everything they need, but Python and make, they install into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
IMAGE ?= gardener:latest

.DEFAULT_GOAL := help
.PHONY: help demo test test-stack test-lowest wheel wheel-test lint format screenshots image image-test clean

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(INSTALLED)  ## Run the whole pipeline on this machine, with sample archives
	@$(BIN)/gardener demo

test: $(INSTALLED) lint  ## Check layers, style and types, then run all tests but those of the stack
	@$(BIN)/pytest -n 3  # on two cores: many tests wait for processes

test-stack: $(INSTALLED)  ## Run the tests of the whole stack, on SQLite, PostgreSQL and Kubernetes' API
	@$(BIN)/python -m compileall -q gardener_api gardener_dagster tests/support  # each run is a process
	@$(BIN)/pytest -m stack -n 2 tests/integration tests/deploy  # a stack for each core

test-lowest: $(INSTALLED)  ## Run the tests of the packages with the lowest versions that pyproject.toml allows
	@$(BIN)/python tests/support/lowest_versions.py >$(VENV)/lowest.txt
	@$(PYTHON) -m venv $(VENV)-lowest
	@$(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check --constraint $(VENV)/lowest.txt --editable '.[dev]'
	@$(VENV)-lowest/bin/pytest -n 3 tests/gardener_api tests/gardener_dagster tests/contract

wheel: $(INSTALLED)  ## Build the package: build/wheel/gardener-VERSION-py3-none-any.whl
	@rm -rf build
	@$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .

wheel-test: wheel  ## Install the package into a new environment; run its demo in an empty folder
	@$(PYTHON) -m venv build/env
	@build/env/bin/pip install --quiet --disable-pip-version-check "$$(ls build/wheel/*.whl)[local]"
	@mkdir build/empty && cd build/empty && ../env/bin/gardener demo --exit

lint: $(INSTALLED)  ## Check layers, style and types
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

screenshots: $(INSTALLED)  ## Take the pictures of the docs; needs Chromium, PostgreSQL, Prometheus
	@PYTHONPATH=tests/support $(BIN)/python tests/by_hand/screenshots.py

image:  ## Build the container image with docker, podman or buildah (IMAGE, BUILD_FLAGS)
	@deploy/build-image $(IMAGE) $(BUILD_FLAGS)

image-test: $(INSTALLED)  ## Try the parts inside the image; needs PostgreSQL (IMAGE)
	@IMAGE=$(IMAGE) $(BIN)/pytest -m image tests/deploy/test_image.py

format: $(INSTALLED)  ## Format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

clean:  ## Remove the environment and all local data
	rm -rf $(VENV) $(VENV)-lowest .gardener build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A marker that is older than pyproject.toml installs again.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "The gardener needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV) (about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
