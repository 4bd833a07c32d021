# make sample   16 images from the shipped model, in samples.png
# make test     the linters, the types, the documentation and the tests
# make help     the other targets and the variables

# A Python of 3.11 or newer: name one with PYTHON=..., else the first of these that is.
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$each" && break; done)
# Another index beside pip's own, e.g. one with the small CPU build of torch.
TORCH_INDEX ?=
# Processes that run the tests; what is given to pytest besides.
JOBS ?= 2
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') --editable

.PHONY: sample test lint docs install clean distclean help
.DELETE_ON_ERROR:

sample: $(VENV)/installed  ## write samples.png: 16 images from the shipped model in 10 network calls
	$(BIN)/attenua sample cifar10 --num 16 --steps 10 --out samples.png --overwrite

test: lint  ## run the linters, check the documentation, run the tests
	$(BIN)/python docs/build.py --check
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

lint: $(VENV)/installed-dev  ## check the style, the layers of imports and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/installed-dev  ## bring docs/cli.md up to date and build the documentation in site/
	$(BIN)/python docs/build.py

install: $(VENV)/installed-dev  ## make .venv with all that development needs, and nothing else

clean:  ## remove what was built, but neither .venv nor data nor runs
	rm -rf build dist site samples.png .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(wildcard src tests docs benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## remove .venv as well
	rm -rf $(VENV) src/*.egg-info

help:  ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "PYTHON=python3.12   the Python that .venv is made with (3.11 or newer); now: $(or $(PYTHON),none was found)"
	@echo "TORCH_INDEX=URL     another index for pip, e.g. one with the small CPU build of torch"
	@echo "JOBS=2              processes that run the tests"
	@echo "PYTEST_ARGS=...     what pytest is given besides, e.g. PYTEST_ARGS='-m slow'"

# The stamps are newer than what they depend on, so a second call installs nothing.
$(VENV)/made:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make: attenua needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is not,none was found): name one, as in make PYTHON=python3.12" >&2; \
		exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml constraints.txt
	$(INSTALL) .
	@touch $@

$(VENV)/installed-dev: $(VENV)/made pyproject.toml constraints.txt
	$(INSTALL) '.[dev]'
	@touch $@ $(VENV)/installed
