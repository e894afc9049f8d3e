# Every target makes what it needs. Arguments go through ARGS: make test ARGS="-k openai -x"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
PYTHON ?= python3.11
CONFIG ?= quickstart
ARGS ?=

BIN := $(VENV)/bin
PYTEST = $(BIN)/python -m pytest $(TRACED:%=--cov --cov-report=)
REQ := requirements
CODE := rayserve_platform deployments tests

# The environment is current when it holds a stamp named after what it was made from.
SOURCES := pyproject.toml $(REQ)/dev.lock $(REQ)/uv.txt
STAMP := $(VENV)/.made-from-$(shell cat $(SOURCES) 2>/dev/null | sha256sum | cut -c 1-16)

# OpenVINO GenAI's configs need much less. What has once become whole stays so.
LIGHT := $(VENV)/.quickstart-made-from-$(shell cat pyproject.toml $(REQ)/quickstart.lock $(REQ)/uv.txt 2>/dev/null | sha256sum | cut -c 1-16)
IS_LIGHT := $(and $(filter quickstart genai,$(CONFIG)),$(if $(wildcard $(VENV)/.made-from-*),,yes))
RUN_ENV := $(if $(IS_LIGHT),$(LIGHT),$(STAMP))

# torch's CPU build is not on the package index: it comes from the wheel folders or pages that pip
# is told of, otherwise from PyTorch's own index.
ifdef PIP_FIND_LINKS
TORCH := $(PIP_FIND_LINKS:%=--find-links %)
else
TORCH := --torch-backend cpu
endif

# The environments of the servers that the bench measures against, and of the frameworks that tests
# make models with; current when they hold a stamp of the same kind.
made-from = .made-from-$(shell cat $(REQ)/$(1).txt $(REQ)/uv.txt 2>/dev/null | sha256sum | cut -c 1-16)
peer = .bench/$(1)/$(call made-from,$(1)-peer)
framework = .frameworks/$(1)/$(call made-from,$(1)-models)
PEERS := $(foreach name,caikit kserve mlserver,$(call peer,$(name)))
FRAMEWORKS := $(foreach name,tensorflow paddle,$(call framework,$(name)))

# On a terminal uv shows its own progress.
QUIET := $(shell [ -t 2 ] || echo --quiet)
UV_ARGS := --python $(BIN)/python $(QUIET)

LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --override $(REQ)/overrides.txt \
	--no-annotate --no-emit-find-links --no-emit-index-url \
	--custom-compile-command "make lock" $(TORCH)

SERVING := --extra cpu --extra caikit --extra redis --extra models --extra quickstart

.PHONY: help env run test coverage lint format protos bench caikit-peer kserve-peer mlserver-peer \
	tensorflow-models paddle-models lock clean packages uv venv

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 24

env: $(STAMP) ## build the Python environment in .venv, or bring it up to date
	@:

# On a terminal the server gets a foreground group of its own (set -m), so that Ctrl-C reaches it
# alone: it stops cleanly, and make ends with its exit status instead of "Interrupt". Elsewhere it
# takes the shell's place, so that signals reach it.
run: $(RUN_ENV) ## serve configs/$(CONFIG) on HTTP 8000 and gRPC 9000 until Ctrl-C; CONFIG=quickstart
	@serve=($(BIN)/rayserve run configs/$(CONFIG)/serve.yaml $(ARGS)); \
	if [ -t 0 ]; then set -m; "$${serve[@]}" && :; else exec "$${serve[@]}"; fi

# vLLM's engine gets a process of its own: in one with all other tests its start has failed once, for
# a reason that was not seen (CPython 3.11 said "AST constructor recursion depth mismatch"). It
# computes on one core, and so do the tests with clients and the others without a cluster: those run
# beside each other, and the output of the first two is shown afterwards.
# The frameworks' environments are for a few of the tests, so those that ARGS names go without them;
# one that needs them says so.
test: env $(if $(strip $(ARGS)),,tensorflow-models paddle-models) ## run every test
ifeq ($(strip $(ARGS)),)
	@failed=0; log=$$(mktemp); \
	trap 'rm -f "$$log"; pkill -P "$$beside" 2>/dev/null || :; kill "$$beside" 2>/dev/null || :' EXIT; \
	( ended=0; $(TRACED:%=export COVERAGE_FILE=.coverage.beside;) \
	$(PYTEST) tests/e2e/engine || ended=$$?; \
	$(PYTEST) $(TRACED:%=--cov-append) tests/contract || ended=$$?; \
	exit "$$ended" ) >"$$log" 2>&1 & beside=$$!; \
	$(PYTEST) tests/unit || failed=$$?; \
	wait "$$beside" || failed=$$?; \
	cat "$$log"; \
	$(PYTEST) $(TRACED:%=--cov-append) --ignore=tests/e2e/engine tests/e2e || failed=$$?; \
	exit "$$failed"
else
	@$(PYTEST) $(ARGS)
endif

# Apart from `test`: tracing takes half as much time again.
coverage: TRACED := yes
coverage: test ## run every test, with a coverage report
	@[ ! -e .coverage.beside ] || $(BIN)/coverage combine --append --quiet .coverage.beside
	@$(BIN)/coverage report

lint: env ## ruff (lint and format), mypy, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: env ## rewrite the code as lint wants it
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

protos: env ## generate rayserve_platform/pb anew from protos/
	@rm -rf rayserve_platform/pb && mkdir rayserve_platform/pb
	@$(BIN)/python -m grpc_tools.protoc -Irayserve_platform/pb=protos \
		--python_out=. --pyi_out=. --grpc_python_out=. protos/*.proto
	@printf '"""Generated from protos/ by `make protos`; never edited."""\n' \
		> rayserve_platform/pb/__init__.py

bench: env caikit-peer kserve-peer mlserver-peer ## measure ours and the peers in one run
	@$(BIN)/rayserve bench suite $(ARGS)

caikit-peer: $(call peer,caikit) ## build the environment of the real Caikit runtime, a peer of the bench
	@:

kserve-peer: $(call peer,kserve) ## build that of KServe's own Python model server, another
	@:

mlserver-peer: $(call peer,mlserver) ## build that of Seldon's MLServer, a third
	@:

tensorflow-models: $(call framework,tensorflow) ## build the environment in which tests make TensorFlow's models
	@:

paddle-models: $(call framework,paddle) ## build that for PaddlePaddle's
	@:

lock: ## resolve requirements/*.lock anew from pyproject.toml; newest versions: ARGS=--upgrade
	@$(MAKE) uv
	@echo "lock: resolving requirements/cpu.lock"
	@$(LOCK) $(ARGS) $(SERVING) --output-file $(REQ)/cpu.lock
	@echo "lock: resolving requirements/quickstart.lock"
	@$(LOCK) $(ARGS) --constraint $(REQ)/cpu.lock --extra quickstart --output-file $(REQ)/quickstart.lock
	@echo "lock: resolving requirements/dev.lock"
	@$(LOCK) $(ARGS) --constraint $(REQ)/cpu.lock $(SERVING) --extra rego --extra bench --extra dev \
		--output-file $(REQ)/dev.lock

clean: ## remove the environment and everything generated
	rm -rf $(VENV) .bench .frameworks .ci/venv build dist *.egg-info .coverage htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# --- how the environment is made ----------------------------------------------------------------

# A build that did not end leaves .incomplete behind and is started over from nothing, since
# half-copied packages look installed. Of several makes at once one builds, the others wait for it.
$(STAMP): MADE_FROM := dev.lock
$(LIGHT): MADE_FROM := quickstart.lock
$(STAMP) $(LIGHT): | $(SOURCES)
	@mkdir -p $(dir $(VENV))
	@exec 9> $(VENV).lock; flock 9; [ -e $@ ] || $(MAKE) packages FOR=$@ FROM=$(REQ)/$(MADE_FROM)

# Compiled here: a start of Ray imports in a dozen processes, which would all do it at first, and
# always where PYTHONDONTWRITEBYTECODE is set.
packages:
	@$(MAKE) uv
	@touch $(VENV)/.incomplete
	@rm -f $(VENV)/.made-from-* $(VENV)/.quickstart-made-from-*
	@echo "env: installing the $$(grep -c == $(FROM)) packages of $(FROM)"
	@$(BIN)/uv pip sync $(UV_ARGS) --compile-bytecode $(TORCH) $(FROM) $(REQ)/uv.txt
	@echo "env: installing this project, editable"
	@$(BIN)/uv pip install $(UV_ARGS) --no-deps --no-build-isolation --editable .
	@rm $(VENV)/.incomplete
	@touch $(FOR)
	@echo "env: ready in $(VENV)"

# The stamp is written last; what an interrupted build left is replaced as a whole. Here too, of several
# makes at once one builds. Without looking at dependencies: the lists are complete.
$(PEERS): LIST = $(notdir $(@D))-peer
$(FRAMEWORKS): LIST = $(notdir $(@D))-models
$(PEERS) $(FRAMEWORKS): | env
	@mkdir -p $(dir $(@D))
	@exec 9> $(@D).lock; flock 9; [ ! -e $@ ] || exit 0; \
	echo "$(LIST): installing the $$(grep -c == $(REQ)/$(LIST).txt) packages of its list"; \
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(@D); \
	$(BIN)/uv pip install --python $(@D)/bin/python $(QUIET) --no-deps $(TORCH) \
		-r $(REQ)/$(LIST).txt; \
	touch $@; \
	echo "$(LIST): ready in $(@D)"

uv:
	@if [ -e $(VENV)/.incomplete ]; then \
		echo "env: an earlier build did not end; starting over"; rm -rf $(VENV); fi
	@[ -x $(BIN)/uv ] || $(MAKE) venv

venv:
	@if [ -n "$$(ls -A $(VENV) 2>/dev/null)" ] && [ ! -e $(VENV)/pyvenv.cfg ]; then \
		echo "env: $(VENV) holds something else; choose another folder: make VENV=..." >&2; exit 1; fi
	@command -v $(PYTHON) >/dev/null || { \
		echo "env: no $(PYTHON) here; the locks are for Python 3.11: make PYTHON=/path/to/it" >&2; exit 1; }
	@echo "env: creating $(VENV) with $$($(PYTHON) --version)"
	@rm -rf $(VENV)
	@mkdir -p $(VENV)
	@touch $(VENV)/.incomplete
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $(REQ)/uv.txt
	@rm $(VENV)/.incomplete
