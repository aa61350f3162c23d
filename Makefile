# `make demo` is the place to begin. Needs make and Python 3.11 or later; .venv is set up where it is missing or stale.

PYTHON ?= python3
bin := .venv/bin
needs_runtime := .venv/.runtime
needs_test := .venv/.test
needs_bench := .venv/.bench
shells := mksh=mksh zsh=zsh ksh=ksh busybox-static=busybox inotify-tools=inotifywait strace=strace sqlite3=sqlite3 faketime=faketime
queues := task-spooler=tsp nq=nq at=at

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo up test check faults bench clean packages bench-packages again

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

demo: $(needs_runtime) ## eight bash callers, two simulated engines, the queue as it moves: under a minute
	@$(bin)/python -m orchestrator.demo

up: $(needs_runtime) ## the same engines and `orchestrator up` in ./demo-run/, until Ctrl-C
	@$(bin)/python -m orchestrator.demo.up

test: check ## check, and all tests
	@$(bin)/pytest -q -n 3 --dist worksteal # most tests wait most of the time

check: $(needs_test) packages ## style, types and shell files
	@$(bin)/ruff check --quiet
	@$(bin)/ruff format --check --quiet || { echo "not formatted: run $(bin)/ruff format" >&2; exit 1; }
	@$(bin)/mypy --no-error-summary
	@.ci/shell-files | xargs -d '\n' $(bin)/shellcheck

faults: $(needs_test) packages ## the fault tests at all of their points: what docs/reliability.md quotes; an hour or two
	@FAULTS=whole $(bin)/pytest -q -rP -n 3 --dist worksteal tests/faults --ignore tests/faults/test_load.py
	@FAULTS=whole $(bin)/pytest -q -rP tests/faults/test_load.py

bench: $(needs_bench) bench-packages ## ours beside other queues, in under ten minutes: writes BENCHMARKS.md
	@$(bin)/python -m benchmarks

clean: ## remove all that make has made
	@rm -rf .venv build dist demo-run .mypy_cache .ruff_cache .pytest_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages:
	@.ci/debian-packages $(shells)

bench-packages: packages
	@.ci/debian-packages $(queues)

# .venv is of no more use once python3 is another one, or the checkout was moved.
ifneq ($(filter-out help clean,$(MAKECMDGOALS)),)
python := $(shell $(PYTHON) -c 'import os, sys; print(sys.version.split()[0], sys.base_prefix, os.getcwd())' 2>/dev/null)
made_by := $(shell test -x $(bin)/python && cat .venv/.made-by 2>/dev/null)
ifneq ($(python),$(made_by))
fresh := again
endif
endif

install = $(bin)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

$(needs_runtime): pyproject.toml constraints.txt $(fresh)
	@$(PYTHON) -c '' 2>/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or later" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is too old: 3.11 or later is needed (make PYTHON=python3.12 ... takes another)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$(PYTHON) has no venv module: install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "setting up .venv"
	@$(if $(fresh),rm -rf .venv && $(PYTHON) -m venv .venv)
	@$(install) .
	@echo '$(python)' >.venv/.made-by
	@touch $@

$(needs_test): $(needs_runtime)
	@echo "setting up .venv for tests"
	@$(install) '.[test]'
	@touch $@

$(needs_bench): $(needs_runtime)
	@echo "setting up .venv for benchmarks"
	@$(install) '.[bench]'
	@touch $@
