# Set-up, demo and gate. Needs make, git and Python 3.11 or newer with pip and venv; everything else goes into .venv.

# The first of these that runs and is new enough; PYTHON=... names another
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
COVERAGE_FLOOR ?= 85

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
MADE := $(VENV)/.made-in
INSTALLED_CPU := $(VENV)/.installed-cpu
INSTALLED_DEV := $(VENV)/.installed-dev
SAMPLES := sample_models

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s%s\n", $$1, $$2}' Makefile

demo: $(INSTALLED_CPU)  ## Set up, optimize a trained model, print before and after, write demo/report.json
	@mkdir -p demo
	$(BIN)/onnxcomp optimize $(SAMPLES)/resnet8/model.onnx \
		--calibration $(SAMPLES)/fashion_mnist/calibration.npz \
		--eval $(SAMPLES)/fashion_mnist/eval.npz --metric top1 --max-drop 0.01 \
		-o demo/resnet8.opt.onnx --report demo/report.json --overwrite

test: lint  ## Set up and run the gate: lint, types, tests, coverage floor
	$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE_FLOOR)

lint: $(INSTALLED_DEV)  ## Set up and run the linter, the format check and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED_DEV)  ## Set up, format the code and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove everything that these targets made
	rm -rf $(VENV) demo site build dist *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED_CPU): pyproject.toml $(MADE)
	@echo "Installing onnxcomp[cpu] into $(VENV)"
	@$(PIP) install -e '.[cpu]'
	@touch $@

# Brings all that the demo needs, too
$(INSTALLED_DEV): pyproject.toml $(MADE)
	@echo "Installing onnxcomp[cpu,dev] into $(VENV)"
	@$(PIP) install -e '.[cpu,dev]'
	@touch $(INSTALLED_CPU) $@

# A virtual environment works only in the folder where it was made, and while its interpreter is there
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat $(MADE) 2>/dev/null),$(CURDIR))
.PHONY: $(MADE)
endif
$(MADE):
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=python3.12 ..." >&2; exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is not Python 3.11 or newer; name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV) || { \
		echo "error: $(PYTHON) can't make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "$(CURDIR)" > $@
