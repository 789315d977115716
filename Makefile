# One entry point for people and for CI. `make demo` and `make test` need nothing but Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two busy processes spin against each other otherwise.
export GOMP_SPINCOUNT ?= 0
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install demo test lint types format check docs clean help

help:
	@echo "make install   set up $(VENV)"
	@echo "make demo      the main job on embedded data; pictures in demo-out/"
	@echo "make test      all tests"
	@echo "make check     format, lint, types"
	@echo "make docs      the documentation, in site/"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/frozen-cache demo --out demo-out

# Workers share the cores, so each computes on one; a file's tests stay together, since they share what they made.
WORKERS ?= 2
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint types

# In a folder of its own: what the site's builder needs is nothing that the package needs.
docs: install
	$(BIN)/uv tool run zensical build --clean --strict

clean:
	rm -rf $(VENV) demo-out site
