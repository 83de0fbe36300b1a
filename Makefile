# Every target is one line on top of the command `lab` (.venv/bin/lab --help).
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
LAB := .venv/bin/lab
METHODS := $(basename $(notdir $(wildcard nginx/methods/*.conf)))
METHOD ?= round_robin
DEBIAN := $(foreach word,lab $(METHODS),$(wildcard tests/live/test_$(word).py))
.PHONY: help python setup demo up down status test test-heavy test-debian soak bench check use ab split run logs $(METHODS)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'; echo "  make METHOD       balance by one of: $(METHODS)"

setup: ## engine, Compose v2, images, .venv: whatever is missing
	@$(PYTHON) -m lab.setup

demo: setup ## set-up, up, every method under ab with its split and verdict
	@$(LAB) demo

up: setup ## bring the lab up, healthy before it returns (ARGS="--backends 5")
	@$(LAB) up $(ARGS)

down: ## take it down; no container, network or volume stays
	@$(LAB) down

status: ## what runs, on which addresses, by which method
	@$(LAB) status $(ARGS)

use: ## switch the method: make use METHOD=least_conn ARGS="--weights 3,2,1"
	@$(LAB) use $(METHOD) $(ARGS)

ab: ## ApacheBench through nginx: make ab ARGS="-n 1000 -c 10"
	@$(LAB) ab $(ARGS)

split: ## which backend answered how often: make split [FILE=access.log]
	@$(LAB) split $(or $(FILE),</dev/null) $(ARGS)

run: ## use, traffic, split, verdict: make run METHOD=hash
	@$(LAB) run $(METHOD) $(ARGS)

logs: ## the article's log, as nginx writes it
	@docker compose -p $${LAB_PROJECT:-nginx-llm-lab} logs --no-log-prefix $(ARGS) nginx

test: setup ## quick tests, then tests against live containers; JUnit in .lab/junit
	@.venv/bin/pytest tests --ignore tests/live --ignore tests/heavy --junitxml .lab/junit/quick.xml -q && .venv/bin/pytest tests/live --junitxml .lab/junit/live.xml -q

test-heavy: setup ## the long proofs, and the methods on Debian's nginx (LAB_SOAK=10, LAB_POWER_SEEDS=20, LAB_FOREIGN_RUNS=20: hours)
	@.venv/bin/pytest tests/heavy --junitxml .lab/junit/heavy.xml -q && $(MAKE) --no-print-directory test-debian

test-debian: ## every method on Debian's nginx 1.26; what needs a newer one skips, saying so
	@NGINX=debian $(PYTHON) -m lab.setup && NGINX=debian .venv/bin/pytest $(DEBIAN) --junitxml .lab/junit/debian.xml -q

soak: setup ## random faults under traffic, all accounted for: make soak ARGS="--seconds 600"
	@$(LAB) up && $(LAB) soak $(ARGS)

bench: setup ## how fast the lab is, beside what it is compared with: make bench ARGS="--quick --check"
	@$(LAB) up && $(LAB) bench $(ARGS)

check: python ## ruff, mypy, import-linter, hadolint, gixy, codespell
	@.ci/check

python: ; @$(PYTHON) -m lab.setup --python-only

$(METHODS): ; @$(LAB) use $@ $(ARGS)
