# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the others.

VENV ?= .venv
# Optional parts of the package that the tests, the benchmark and the page in the browser need.
EXTRAS ?= bench,dev,demo,browser,simplify,texture,mllm
# A Python of at least 3.10. Empty: the first suitable one of those below is taken.
PYTHON ?=
# Where PyTorch comes from, see environments/install_pytorch.sh: the build for CPUs where no NVIDIA card is found (auto),
# or always (cpu), or what pip chooses (usual); and the address of an index for PyTorch alone, which wins.
TORCH_BUILD ?= auto
TORCH_INDEX ?=
# Number of processes for the tests, each with one thread. "0" runs the tests in one process, where a debugger can be used.
WORKERS ?= auto
OUT ?= out/demo
ARGS ?=

BIN := $(VENV)/bin
# Progress is shown in a terminal; a log gets only the lines of this file.
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check \
  $$([ -t 1 ] || echo --quiet --progress-bar off) -c constraints.txt
# The tests of one file stay in one process, because they share data that is slow to load. More than four processes would
# only wait for the largest files. Threads that wait for one another sleep, so that other programs can use the cores.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile
STAMP := $(VENV)/.installed
FULL := $(VENV)/.installed-extras
# With Triton, whose interpreter runs the GPU kernels without a GPU, with Ray, and with a server that speaks S3. Only slow
# tests need this 1 GB.
KERNELS := $(VENV)/.installed-kernels
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10 python3.14 python
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))

.DEFAULT_GOAL := help
.PHONY: help install demo app test test-all lint format train clean

help:
	@echo "make demo       install into $(VENV) and reconstruct the bundled example into $(OUT)"
	@echo "make install    install into $(VENV) only"
	@echo "make app        install, and serve the page in the browser at http://127.0.0.1:7860"
	@echo "make test       install and run the tests"
	@echo "make test-all   the same with the slow tests, and with the GPU kernels in Triton's interpreter"
	@echo "make lint       check the code with ruff and mypy"
	@echo "make format     let ruff fix the problems that it can fix"
	@echo "make train      train the small model (hours on a CPU); for instance ARGS='minutes=90 device=cuda'"
	@echo "make clean      remove $(VENV) and caches"
	@echo
	@echo "Settings, for instance: make demo TORCH_BUILD=cpu"
	@echo "PYTHON=python3.12 chooses the interpreter."
	@echo "TORCH_BUILD=cpu takes PyTorch's build for CPUs, TORCH_BUILD=usual the build that pip chooses. Without this"
	@echo "setting, the build for CPUs is taken on Linux if no NVIDIA card is found. TORCH_INDEX=ADDRESS takes PyTorch from"
	@echo "another index."
	@echo "OUT=FOLDER is the folder for the results of make demo. ARGS='...' is passed on to the command."
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
	@TORCH_BUILD=$(TORCH_BUILD) TORCH_INDEX=$(TORCH_INDEX) sh environments/install_pytorch.sh $(BIN)/python
	@echo "make: installing fastsam3d and the other packages that it needs: 0.1 GB to download, 0.3 GB on disk"
	@$(PIP_INSTALL) -e .
	@touch $@

$(FULL): $(STAMP)
	@echo "make: installing its extras $(EXTRAS): 0.3 GB to download, 0.7 GB on disk"
	@$(PIP_INSTALL) -e '.[$(EXTRAS)]'
	@touch $@

$(KERNELS): $(FULL)
	@echo "make: installing its extras kernels and ray, s3fs and moto"
	@$(PIP_INSTALL) -e '.[kernels,ray]' s3fs 'moto[server]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python infer.py --output_dir $(OUT) --enable_acceleration $(ARGS)
	@echo "make: the results are in $(OUT). Before you type commands of your own, activate the environment in this shell:"
	@echo "  . $(BIN)/activate"

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
