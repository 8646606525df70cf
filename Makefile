# SPDX-License-Identifier: Apache-2.0
# Targets explain themselves: `make help`. Everything happens in .venv; only `make test` may install Debian packages,
# and only as root.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# A Python that is new enough; `make PYTHON=… venv` chooses another.
PYTHON ?= $(shell tools/find-python)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
LOCK := requirements.lock
INSTALLED := $(VENV)/.installed
# Published descriptions that tests hold the program to, and what the site brings along; shared by all work trees.
export SUREFOOT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/surefoot

# What the tests need beside Python: real sshd, sudo, namespaces, git work trees, processes
# to look at, login shells of all kinds; and for the lab's hosts: systemd, a switch that fails, PostgreSQL, nginx, Redis;
# and for checks: servers of their kinds; and what reads the manual's pages.
DEBIAN := openssh-server:/usr/sbin/sshd openssh-client:/usr/bin/ssh sudo:/usr/bin/sudo util-linux:/usr/bin/setpriv \
          git:/usr/bin/git procps:/usr/bin/ps faketime:/usr/bin/faketime npm:/usr/bin/npm \
          prometheus:/usr/bin/promtool prometheus-alertmanager:/usr/bin/amtool \
          prometheus-pushgateway:/usr/bin/prometheus-pushgateway \
          systemd:/lib/systemd/systemd dbus:/usr/bin/dbus-daemon iproute2:/sbin/ip nftables:/usr/sbin/nft \
          nginx-light:/usr/sbin/nginx redis-server:/usr/bin/redis-server postgresql:/usr/bin/pg_createcluster \
          docker-registry:/usr/bin/docker-registry mandoc:/usr/bin/mandoc \
          fish:/usr/bin/fish tcsh:/usr/bin/tcsh zsh:/usr/bin/zsh
# For a part of the tests alone: make test ARGS="tests/unit -x"
ARGS ?=

.PHONY: help
help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(INSTALLED) ## Make .venv: Surefoot from this folder, and all it needs at the locked versions
	@# Where Python may not write bytecode (PYTHONDONTWRITEBYTECODE), each start would compile all that it imports.
	@$(BIN)/python -m compileall -q src

$(INSTALLED): $(LOCK) pyproject.toml tools/make-venv
	@tools/make-venv "$(PYTHON)" $(VENV) $(LOCK)
	@touch $@

.PHONY: demo
demo: venv ## The whole story on this machine: deploys, kills, freezes, and a verdict read from the hosts
	@$(BIN)/surefoot demo

.PHONY: debian
debian: ## Install what the tests need of Debian, if it is missing and you are root
	@tools/need-debian $(DEBIAN)

.PHONY: cache
cache: ## Fetch the published API descriptions that tests need, and what draws the site's diagrams, if they are missing
	@tools/npm-files "$(SUREFOOT_CACHE)/npm"

# Most tests wait for processes, timers and hosts, so a few more workers than cores; each file's tests stay together.
WORKERS ?= 3
COVERAGE :=

.PHONY: test
test: debian venv cache ## Run all tests; ARGS="tests/unit -x" for a part, WORKERS=0 one by one
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(COVERAGE) $(ARGS)

.PHONY: coverage
coverage: ## Run the tests with branch coverage (which takes half as long again where they compute), and show what they did not run
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory test COVERAGE="--cov --cov-branch --cov-report=term"

.PHONY: chaos
chaos: debian venv ## Deploy in the lab while everything fails at random (root); N=100 for so many rounds, SEED=7 to play again, JOBS=3 labs at once
	@$(BIN)/python -m tests.chaos.lab --rounds $(N) --jobs $(JOBS) $(if $(SEED),--seed $(SEED))
N ?= 20
JOBS ?= 1
SEED ?=

.PHONY: doctor-faults
doctor-faults: debian venv ## Make every fault of docs/doctor.md in the lab (root), and print what doctor says of it; ARGS="sudo clock" for some
	@$(BIN)/python -m tests.lab.examine $(ARGS)

.PHONY: ci-local
ci-local: debian venv ## Play the four scenarios of PAWS360 in the lab (root); reports in build/drills; SCENARIOS="failover" for some
	@tools/ci-local $(BIN)/surefoot build/drills $(SCENARIOS)
SCENARIOS ?=

.PHONY: bench
bench: debian venv ## Measure what is promised in numbers; ARGS="throughput" for one row, ARGS=--help for more
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: soak
soak: venv ## Play a million simulated schedules; ARGS="--first 250001" goes on, ARGS=--help for more
	@$(BIN)/python -m tests.simulation.soak $(ARGS)

.PHONY: mutants
mutants: venv ## Put protocol bugs into the simulation, one by one: each must be caught
	@$(BIN)/python -m tests.simulation.mutants $(ARGS)

.PHONY: crash-points
crash-points: venv ## Kill the real agent at every point of a deployment, on both databases; some twenty minutes
	@$(BIN)/python -m tests.crash.points $(ARGS)

.PHONY: check-kinds
check-kinds: debian venv cache ## What each kind of check says of what is well, is not, hangs, or answers garbage: a table
	@$(BIN)/python -m tests.checks.table

.PHONY: health-faults
health-faults: debian venv cache ## Break each health check of PAWS360 in turn in the lab (root); ARGS="database" for some
	@$(BIN)/python -m tests.lab.paws360 $(ARGS)

.PHONY: mutation
mutation: venv ## Change the core by one thing at a time: something must notice; an hour; ARGS="--sample 50" for less
	@$(BIN)/python -m tests.mutation.core $(ARGS)

.PHONY: lint
lint: venv ## Lint, and hold the format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: venv ## Put the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: venv ## Check types, strictly
	@$(BIN)/mypy

.PHONY: imports
imports: venv ## Hold the direction of imports: cli, agent, steps and checks and store, config, core
	@$(BIN)/lint-imports

.PHONY: docs
docs: venv site ## Check the documentation: every link leads somewhere, every page is reached, every command exists
	@$(BIN)/python tools/check_docs.py

.PHONY: man
man: venv ## Make the manual's pages anew, from the commands
	@$(BIN)/python -m surefoot.cli.manual man

.PHONY: site
site: venv cache ## Build the documentation's site, strictly, into build/site/html
	@tools/make-site $(VENV) "$(SUREFOOT_CACHE)" build/site

.PHONY: package
package: venv ## Build the wheel, install it into an empty environment, and run it there
	@tools/check-package $(VENV) $(LOCK)

.PHONY: check
check: test lint types imports docs package ## All of the above but the demo: what CI runs

.PHONY: lock
lock: venv ## Choose versions anew, the newest that pyproject.toml allows (UPGRADE= keeps the locked ones where it can)
	@tools/make-lock $(UV) $(LOCK) $(UPGRADE)
UPGRADE := --upgrade

.PHONY: clean
clean: ## Remove what was built, and .venv
	@rm -rf $(VENV) build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
