# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the others.

VENV ?= .venv
# Optional parts of the package that the tests, the benchmark and the page in the browser need.
EXTRAS ?= bench,dev,demo,browser,simplify,texture,mllm
# A Python of at least 3.10. Empty: the first suitable one of those below is taken.
PYTHON ?=
# Address of a wheel index for PyTorch alone, e.g. that of its CPU builds, which are much smaller. Empty: the usual one.
TORCH_INDEX ?=
# Processes that the tests run in, each with one thread; "0" runs them in one process, where a debugger can be used.
WORKERS ?= auto
OUT ?= out/demo
ARGS ?=

BIN := $(VENV)/bin
# The tests of one file stay in one process, because they share what is costly to load. More than four processes would
# wait for the largest files. Threads that wait for one another sleep, so that a busy machine can go on meanwhile.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile
STAMP := $(VENV)/.installed
FULL := $(VENV)/.installed-extras
# With Triton, whose interpreter runs the GPU kernels without a GPU, and with Ray: 1 GB that only slow tests need.
KERNELS := $(VENV)/.installed-kernels
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10 python3.14 python
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))

.DEFAULT_GOAL := help
.PHONY: help install demo app test test-all lint format train clean

help:
	@echo "make demo       install into $(VENV) and reconstruct the bundled example into $(OUT)"
	@echo "make app        install, and serve the page for trying it at http://127.0.0.1:7860"
	@echo "make test       install and run the tests"
	@echo "make test-all   the same with the slow tests, and with the GPU kernels in Triton's interpreter"
	@echo "make lint       ruff and mypy"
	@echo "make train      train the small model (hours on a CPU); ARGS='minutes=90 device=cuda'"
	@echo "make clean      remove $(VENV) and caches"
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter; TORCH_INDEX=ADDRESS the index that PyTorch comes from,"
	@echo "for instance that of its CPU builds; ARGS='...' is passed on to the command."
	@echo "WORKERS=0 runs the tests in one process, WORKERS=N in N at a time (at most 4)."

install: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt
	@set -e; \
	if [ ! -x $(BIN)/python ]; then \
	  found=; \
	  for candidate in $(or $(PYTHON),$(CANDIDATES)); do \
	    if $$candidate -c '$(SUITABLE)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "make: no Python of at least 3.10 with the venv module among: $(or $(PYTHON),$(CANDIDATES))." >&2; \
	    echo "make: install one (Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  echo "make: $$($$found --version) -> $(VENV)"; \
	  $$found -m venv $(VENV); \
	fi
	@test -z "$(TORCH_INDEX)" || $(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
	  --index-url $(TORCH_INDEX) -c constraints.txt torch
	@echo "make: installing fastsam3d (PyTorch is large: minutes on a slow line)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off -c constraints.txt -e .
	@touch $@

$(FULL): $(STAMP)
	@echo "make: installing its extras $(EXTRAS)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
	  -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

$(KERNELS): $(FULL)
	@echo "make: installing its extras kernels and ray"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
	  -c constraints.txt -e '.[kernels,ray]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python infer.py --output_dir $(OUT) --enable_acceleration $(ARGS)

app: $(FULL)
	@$(BIN)/python gradio_demo.py $(ARGS)

test: $(FULL)
	@$(PYTEST) -m "not slow" $(ARGS)

test-all: $(KERNELS)
	@$(PYTEST) $(ARGS)

lint: $(FULL)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy

format: $(FULL)
	@$(BIN)/python -m ruff check --fix .

train: $(FULL)
	@$(BIN)/python -m fastsam3d train $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
