# Needs make and a Python >= 3.11 that can make virtual environments; everything else goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
FIND_PYTHON := for p in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && exec echo "$$p"; done
ARGS ?=
# Processes that share the tests, a file at a time; each has children of its own, with up to 4 GB. JOBS=0: this one alone.
JOBS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint format typecheck bench errors rules clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.run  ## convert a real model to a TensorRT-RTX engine and print the report
	@mkdir -p out
	@models=$$($(BIN)/python -m fixtures.fetch silero) && set -x && \
	$(BIN)/graphkit convert "$$models/silero_vad.jit" --submodule _model --shape x=1,576 --shape state=2,1,128 \
		--to trt -o out/silero_vad.engine
	@echo
	@echo "Made out/silero_vad.engine, the voice detector of silero-vad, with its ONNX and its proof beside it." \
		"Next: $(BIN)/graphkit doctor, or docs/tutorial.md with a model of your own."

test: $(VENV)/.dev  ## run every test (ARGS='-m "not slow"' for a part)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.dev  ## ruff, mypy --strict, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict graphkit cli
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## rewrite the code as ruff wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.dev  ## mypy --strict alone
	$(BIN)/mypy --strict graphkit cli

bench: $(VENV)/.bench  ## measure against bare scripts and peers
	$(BIN)/python -m benchmarks $(ARGS)

errors: $(VENV)/.dev  ## write docs/errors/ anew from graphkit/errors.py
	$(BIN)/python -m graphkit.report.error_pages docs/errors

rules: $(VENV)/.dev  ## write docs/reference/rules.md anew from the rewrite rules
	$(BIN)/python -m graphkit.report.rule_page docs/reference/rules.md

clean:  ## remove what was built, and the virtual environment
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp says that an installation of this pyproject.toml has finished; the developers' one contains the users' one.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "Installing graphkit with PyTorch and TensorRT-RTX into $(VENV) (once; takes some minutes) ..."
	@$(BIN)/python -m pip install -qq --editable '.[torch,trt]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing graphkit with everything that its tests need into $(VENV) (once; takes some minutes) ..."
	@$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $(VENV)/.run $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install -qq --editable '.[bench]'
	@touch $(VENV)/.run $@

$(BIN)/python:
	@python=$$($(FIND_PYTHON)); \
	test -n "$$python" || { echo "graphkit needs Python >= 3.11 with venv (on Debian: python3-venv);" \
		"none found, name yours with make PYTHON=..." >&2; exit 1; }; \
	"$$python" -m venv $(VENV)
