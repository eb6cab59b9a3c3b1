# Needs only Python 3.10 or newer with its venv module; everything else goes into .venv.
# Another interpreter:    make demo PYTHON=python3.12
# Other options for pip:  make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# Options of the demo:    make demo DEMO_ARGS="--launches 2"

PYTHON ?= python3
PIP_ARGS ?=
DEMO_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
PACKAGING := setup.cfg pyproject.toml constraints.txt
VERSION_CHECK := import sys; v = sys.version_info; v < (3, 10) and sys.exit( \
	"error: onnxtrim needs Python 3.10 or newer, $(PYTHON) is %d.%d; try: make PYTHON=python3.12" % v[:2])

.PHONY: help demo test dev check clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 14

demo: $(VENV)/.demo  ## Train, prune, sweep and measure on Fashion-MNIST; writes demo-output/
	@$(BIN)/onnxtrim demo -o demo-output $(DEMO_ARGS)

test: check  ## Check the code, then run the tests, a ten-second smoke test first
	@$(BIN)/python -m pytest -q tests/test_smoke.py
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev  ## Check style and types only
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy

dev: $(VENV)/.dev  ## Install onnxtrim for development, with all extras

clean:  ## Remove what make made: .venv, caches, demo-output
	rm -rf $(VENV) build dist *.egg-info demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are made last, so that an interrupted installation starts again.
$(VENV)/.demo: $(PACKAGING) | $(VENV)/.python
	@echo "Installing onnxtrim with torch into $(VENV) (takes a few minutes the first time)" >&2
	@$(PIP) -e '.[torch,plots]'
	@touch $@

$(VENV)/.dev: $(PACKAGING) | $(VENV)/.python
	@echo "Installing onnxtrim with torch and tools into $(VENV) (takes a few minutes the first time)" >&2
	@$(PIP) -e '.[torch,plots,dev]'
	@touch $(VENV)/.demo $@

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "error: $(PYTHON) is not installed; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c '$(VERSION_CHECK)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@touch $@
