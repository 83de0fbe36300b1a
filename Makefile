# Every target is a one-line wrapper of the command `lab` (.venv/bin/lab --help).
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
LAB := .venv/bin/lab
METHODS := $(basename $(notdir $(wildcard nginx/methods/*.conf)))
METHOD ?= round_robin
DEBIAN := $(foreach word,lab $(METHODS),$(wildcard tests/live/test_$(word).py))
# long tests without time-critical traffic, which run beside those with it
REST := $(foreach word,power unforeseen prediction clients interrupt report stranger verify,tests/heavy/test_$(word).py)
.PHONY: help python setup demo up down status test test-quick test-live test-heavy test-heavy-rest test-heavy-traffic test-debian soak bench check use ab split run logs $(METHODS)

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'; echo "  make METHOD       balance by one of: $(METHODS)"

setup: ## install what is missing: engine, Compose v2, images, .venv
	@$(PYTHON) -m lab.setup

demo: setup ## start the lab, run every method, print each split and verdict
	@$(LAB) demo

up: setup ## start the lab and wait until it is healthy (ARGS="--backends 5")
	@$(LAB) up $(ARGS)

down: ## remove the lab: containers, networks and volumes
	@$(LAB) down

status: ## show containers, addresses and method
	@$(LAB) status $(ARGS)

use: ## switch the method: make use METHOD=least_conn ARGS="--weights 3,2,1"
	@$(LAB) use $(METHOD) $(ARGS)

ab: ## run ApacheBench through nginx: make ab ARGS="-n 1000 -c 10"
	@$(LAB) ab $(ARGS)

split: ## count how often each backend answered: make split [FILE=access.log]
	@$(LAB) split $(or $(FILE),</dev/null) $(ARGS)

run: ## switch the method, send traffic, print split and verdict: make run METHOD=hash
	@$(LAB) run $(METHOD) $(ARGS)

logs: ## print nginx's log in the article's format
	@docker compose -p $${LAB_PROJECT:-nginx-llm-lab} logs --no-log-prefix $(ARGS) nginx

test: setup ## run the quick tests beside the tests against live containers; JUnit in .lab/junit
	@$(MAKE) --no-print-directory -k -j 2 test-quick test-live

test-quick: # its output appears when it has ended, between the lines of test-live
	@mkdir -p .lab/junit; .venv/bin/pytest tests --ignore tests/live --ignore tests/heavy --hypothesis-profile ci --junitxml .lab/junit/quick.xml -q > .lab/junit/quick.txt 2>&1; code=$$?; echo; cat .lab/junit/quick.txt; exit $$code

test-live:
	@.venv/bin/pytest tests/live --junitxml .lab/junit/live.xml -q

test-heavy: setup ## run the long tests, and the methods on Debian's nginx (hours with LAB_SOAK=10, LAB_POWER_SEEDS=20, LAB_FOREIGN_RUNS=20, LAB_OVERLAP_RUNS=25)
	@$(MAKE) --no-print-directory -k -j 2 test-heavy-rest test-heavy-traffic
	@$(MAKE) --no-print-directory test-debian

test-heavy-rest: # its output appears when it has ended, as that of test-quick
	@mkdir -p .lab/junit; .venv/bin/pytest $(REST) --junitxml .lab/junit/rest.xml -q > .lab/junit/rest.txt 2>&1; code=$$?; echo; cat .lab/junit/rest.txt; exit $$code

test-heavy-traffic:
	@.venv/bin/pytest tests/heavy $(addprefix --ignore ,$(REST)) --junitxml .lab/junit/traffic.xml -q

test-debian: ## test every method on Debian's nginx 1.26; methods that need a newer one are skipped
	@NGINX=debian $(PYTHON) -m lab.setup && NGINX=debian .venv/bin/pytest $(DEBIAN) --junitxml .lab/junit/debian.xml -q

soak: setup ## inject random faults under traffic, account for every request: make soak ARGS="--seconds 600"
	@$(LAB) up && $(LAB) soak $(ARGS)

bench: setup ## measure the lab against its reference stacks: make bench ARGS="--quick --check"
	@$(LAB) up && $(LAB) bench $(ARGS)

check: python ## ruff, mypy, import-linter, hadolint, gixy, codespell
	@.ci/check

python: ; @$(PYTHON) -m lab.setup --python-only

$(METHODS): ; @$(LAB) use $@ $(ARGS)
