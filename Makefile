# Two commands do everything on a fresh machine:
#   make demo   sets up and trains the demo's runs: table and picture in work_dirs/demo/
#   make test   sets up and passes the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Written last: a set-up that broke half-way leaves none, and the next try goes on from there.
READY := $(VENV)/.ready
SUPPORTED := import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) \
	else f'Python 3.10 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11')

.PHONY: demo test lint

demo: $(READY)
	$(BIN)/python -m benchmarks demo

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV): a few minutes and 6 GB, once"
	@$(PYTHON) -c "$(SUPPORTED)"
	@rm -f $(READY)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[suite,dev]'
	@touch $(READY)
