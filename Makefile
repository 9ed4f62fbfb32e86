# Every target does its own set-up first; what is set up already costs nothing. `make` prints this help.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
python := .venv/bin/python
pytest := $(python) -m pytest
# Two files of tests at a time, each in a sandbox of its own; the tests of a file share what they start.
# In their order: the last ones are short, so that neither worker waits long for the other.
by_two := --dist loadfile --no-loadscope-reorder --tx "2*popen//python=$(CURDIR)/$(python) -m crossns.testing.sandbox $(CURDIR)/$(python)"

.PHONY: help setup code up demo test test-long verify bench mutants golden protos fmt clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## packages, virtual environment, generated stubs: all that a fresh Debian 12 machine lacks
	@tools/setup
code:
	@tools/setup code

up: setup ## the whole suite on this device, in the foreground
	@.venv/bin/crossns up
demo: setup ## two tenants with the same addresses behind one vService, in a sandbox, with the proof
	@.venv/bin/crossns demo
test: setup ## all tests, with reduced counts of the long ones
	@$(pytest) $(by_two) $(ARGS)
test-long: setup ## all tests, full counts
	@$(pytest) --long $(ARGS)
verify: code ## the quick checks: format, lint, types, walls, protos, sizes, pure tests
	@tools/verify $(LESS)
bench: setup ## measure (ONLY=area for one area), table and bench/results.json
	@$(python) -m bench $(if $(ONLY),--only $(ONLY))
mutants: setup ## break the code in known ways and see that the tests notice (ONLY=part of a file's name)
	@$(python) -m tools.mutants $(ONLY)
golden: code ## write the expected files of scenario tests anew; the diff is the review
	@$(pytest) tests/unit --golden
protos: code ## generate crossns/v1 from protos/ anew
	@tools/protos crossns/v1
fmt: code ## format code and protos, sort imports
	@.venv/bin/ruff check --quiet --select I --fix && .venv/bin/ruff format && .venv/bin/buf format --write protos
clean: ## remove everything that was generated
	@rm -rf .venv build crossns/v1 bench/results.json .*_cache .hypothesis && find . -name __pycache__ -prune -exec rm -rf {} +
