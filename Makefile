# Every target builds the environment in .venv when it is missing or older than what defines it.
#   PYTHON=PATH make setup                  another interpreter
#   TORCH_ARGS="--index-url URL" make setup another source for torch, such as the wheel index of a CUDA version
#   PROFILE=smoke make reports              sizes of the notebook runs: smoke, default or full
SHELL := bash
.DEFAULT_GOAL := help
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
PROFILE ?= default
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install -c constraints.txt
COMPILED := import frugal.families, frugal.frontier, frugal.lab.live.widgets, frugal.lab.run.engine, frugal.lab.sweep; \
    from transformers import GPT2LMHeadModel, LlamaForCausalLM
CPU_WHEELS := https://download.pytorch.org/whl/cpu
# Containers often set this, and then every process compiles PyTorch and transformers again, which takes ten seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup reports gallery docs test tests test-lab test-texts lint format lab bench clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY)  ## build the environment in .venv

# The first name that is one of the supported versions, can make an environment, and runs: a name on the path may be a
# shim that does not. Torch comes first and alone, because an index of its builds has other versions of what it needs.
# Without an NVIDIA driver that is the CPU build, which the common registry does not have for Linux.
# uv installs the rest in a quarter of pip's time. Where it fails, pip, which also knows pip's own settings, takes over.
# mwparserfromhell has no wheel for Python 3.14 yet; WITH_EXTENSION=0 builds one without a compiler.
# The imports that most runs begin with are compiled here once, and not by the first runs side by side.
$(READY): export WITH_EXTENSION := 0
$(READY): pyproject.toml constraints.txt
	@for python in $(PYTHON); do \
	    "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || continue; \
	    echo "Python: $$python"; exec "$$python" -m venv .venv; \
	done; \
	echo >&2 "No Python 3.11 to 3.14 with venv was found as: $(PYTHON). Install one (Debian: apt install python3-venv) or name it: PYTHON=PATH make setup"; \
	exit 1
ifdef TORCH_ARGS
	$(PIP) --no-deps $(TORCH_ARGS) torch
else ifeq ($(shell uname; ls -d /proc/driver/nvidia 2>/dev/null; command -v nvidia-smi),Linux)
	$(PIP) --no-deps --index-url $(CPU_WHEELS) --timeout 10 --retries 0 torch 2>/dev/null || \
	    echo "The CPU build of torch is not to be had from $(CPU_WHEELS): the registry's build follows, which may bring CUDA (4 GB more)."
endif
	$(PIP) uv && $(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e '.[dev]' || $(PIP) -e '.[dev]'
	$(BIN)/python -c '$(COMPILED)'
	@touch $@

reports: $(READY)  ## run every notebook and write reports/index.html (the main job)
	$(BIN)/frugal run --resume --profile $(PROFILE) notebooks/*.ipynb

gallery: $(READY)  ## write docs/gallery from the newest finished runs at default size
	$(BIN)/frugal gallery

# One process more than cores, for a third of the tests' time is waiting, each with one thread and 4 GB of memory.
PROCESSES = $$($(BIN)/python -c 'import os, psutil; print(max(1, min(os.cpu_count() + 1, psutil.virtual_memory().total >> 32)))')

FAMILIES := $(addprefix frugal.families.,echo memory reservoir piecewise counted)

docs: $(READY)  ## write docs/api, pages on every name of the library to read in a browser
	$(BIN)/pdoc --docformat google --output-directory docs/api frugal $(FAMILIES) '!frugal.families.harness'

test: $(READY)  ## check style and types, and run all tests
	@$(MAKE) --no-print-directory --jobs 2 lint tests

tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES)

test-lab: $(READY)  ## run every notebook at its smallest in JupyterLab, by a real browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m every_notebook_in_lab tests/test_jupyterlab.py

test-texts: $(READY)  ## run every notebook that reads a text on eight kinds of small text
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) -m '' tests/test_notebooks_on_texts.py

lint: $(READY)  ## style, types, order of the rooms, notebooks without outputs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

format: $(READY)  ## put code and notebooks into their form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/nbstripout --keep-id notebooks/*.ipynb

# Settings and layout are the project's, not the user's. Trust is given to the notebooks as git has them: they hold no
# outputs (`make lint`), so nothing in them can act before it is run. A notebook changed since, or from elsewhere, is not.
# One thread a kernel, as with `frugal run`: two that wait for each other are slower than one beside another process.
lab: $(READY)  ## open JupyterLab on this machine only, with a token
	comm -23 <(git ls-files 'notebooks/*.ipynb') <(git diff --name-only HEAD) | xargs -r $(BIN)/jupyter trust >/dev/null
	[ -e .venv/workspaces ] || cp -r .jupyter/workspaces .venv
	OMP_NUM_THREADS="$${OMP_NUM_THREADS:-1}" NUMBA_NUM_THREADS="$${NUMBA_NUM_THREADS:-$${OMP_NUM_THREADS:-1}}" \
	JUPYTER_CONFIG_PATH="$(CURDIR)/.jupyter" JUPYTERLAB_WORKSPACES_DIR="$(CURDIR)/.venv/workspaces" \
	$(BIN)/jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

bench: $(READY)  ## side-by-side timings, written to benchmarks/results (hours)
	for script in $(filter-out %/sweep_kills.py %/sweep_interrupts.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit; done

clean:  ## remove the environment and tool caches; texts, weights and reports stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache lib/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
