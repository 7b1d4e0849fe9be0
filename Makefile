# One command each on a fresh machine with Python >= 3.11; a C++ compiler is used if found.
#   make demo       train plain student, teacher and HAS-KD student on made-up rooms; a report;
#                   and segment a real scan, SCAN=my.ply
#   make test       lint, types, tests, doctests
#   make test-slow  the tests marked slow
#   make bench      the engine against its peer (installs torch and spconv)
# PYTHON=python3.12 chooses the interpreter, PYTEST_ARGS='-k conv -x' narrows the tests.

.DEFAULT_GOAL := test
.PHONY: demo test test-slow lint bench clean

# The first of these that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal
BUILD_INPUTS := pyproject.toml CMakeLists.txt $(wildcard kernels/*.cc kernels/*.h)

# A real scan to segment, if there is one: SCAN=my.ply names another.
SCAN ?= $(firstword $(wildcard ../shared/data/open3d-fragment/*.pcd))
RUN ?= runs/demo

demo: $(VENV)/.installed-package
	$(BIN)/haskd train synthrooms small --out "$(RUN)"
	@if [ -n "$(SCAN)" ]; then \
		$(BIN)/haskd predict "$(SCAN)" --checkpoint "$(RUN)/haskd" -o "$(RUN)/scan.ply"; \
	else echo "no scan to segment was found: make demo SCAN=my.ply"; fi
	@echo "open $(RUN)/report.html; turn the rooms over with: $(BIN)/haskd view $(RUN)"

# Every check runs, so that one run tells everything that is wrong.
lint: $(VENV)/.installed
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; \
	exit $$status

test: $(VENV)/.installed
	@status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	$(PYTEST) $(PYTEST_ARGS) || status=1; \
	exit $$status

test-slow: $(VENV)/.installed
	$(PYTEST) -m slow $(PYTEST_ARGS)

bench: $(VENV)/.installed-bench
	$(BIN)/python kernels/bench/conv.py
	$(BIN)/python kernels/bench/unet.py

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache build dist

$(BIN)/python:
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "haskd-jax needs Python 3.11 or newer and found none; name one with" \
			"'make PYTHON=/path/to/python3 ...'" >&2; exit 1; fi
	@echo "creating $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "could not create a virtual environment (Debian, Ubuntu: install python3-venv)" >&2; exit 1; }

$(VENV)/.installed-package: $(BUILD_INPUTS) | $(BIN)/python
	@echo "installing haskd-jax into $(VENV) (a minute or two)"
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed: $(BUILD_INPUTS) | $(BIN)/python
	@echo "installing haskd-jax and its development tools into $(VENV) (two minutes or three)"
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed-package

$(VENV)/.installed-bench: $(VENV)/.installed
	@echo "installing the benchmark's peer (torch, spconv) into $(VENV)"
	@$(PIP) install --quiet --editable '.[bench]'
	@touch $@
