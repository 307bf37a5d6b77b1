# Two commands do everything on a fresh machine:
#   make demo   sets up and trains the demo's runs: table and picture in work_dirs/demo/
#   make test   sets up and passes the tests
# On top of that, where one is root and apt can install Debian's slurm-wlm:
#   make test-slurm   passes the tests on a real Slurm, made for them and gone after them
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Written last: a set-up that broke half-way leaves none, and the next try goes on from there.
READY := $(VENV)/.ready
# OpenMMLab's mmengine shares its import name with OneDL's, so it lies apart, in front of the
# path. It cannot resume under torch >= 2.6 unless checkpoints are loaded as they used to be.
OPENMMLAB := $(CURDIR)/$(VENV)/openmmlab
ON_OPENMMLAB := PYTHONPATH=$(OPENMMLAB) TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1
SUPPORTED := import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) \
	else f'Python 3.10 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11')

.PHONY: demo test test-slurm lint

demo: $(READY)
	$(BIN)/python -m benchmarks demo

test: $(READY)
	@bash tests/browser/install_chromium.sh
	$(BIN)/python -m pytest
	@echo "the hooks and the probe once more, on OpenMMLab's own mmengine"
	$(ON_OPENMMLAB) $(BIN)/python -c "import mmengine; assert mmengine.__version__ == '0.10.7'"
	$(ON_OPENMMLAB) $(BIN)/python -m pytest tests/hooks tests/measure/test_probe*.py

test-slurm: $(READY)
	@bash tests/slurm/with_slurm.sh $(BIN)/python -m pytest tests/slurm

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
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--upgrade --target $(OPENMMLAB) mmengine==0.10.7
	@touch $(READY)
