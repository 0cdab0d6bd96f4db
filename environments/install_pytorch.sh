#!/bin/sh
# Installs PyTorch into an environment, in the build that suits this machine. `make` calls it:
#
#   sh environments/install_pytorch.sh .venv/bin/python
#
# TORCH_INDEX=ADDRESS  takes PyTorch from this index.
# TORCH_BUILD=usual    takes the build that pip chooses. On Linux that is the build for CUDA.
# TORCH_BUILD=cpu      takes the build for CPUs, which is much smaller.
# TORCH_BUILD=auto     (the default) is `cpu` on Linux machines without an NVIDIA card, else `usual`. Where pip is set up
#                      to use sources of its own, these decide.
set -eu

python=$1
constraints=$(dirname "$0")/../constraints.txt
build=${TORCH_BUILD:-auto}
shown=$([ -t 1 ] || echo --quiet --progress-bar off)

say() { echo "make: $*"; }
# shellcheck disable=SC2086 - several words or none
pip_install() { "$python" -m pip install --disable-pip-version-check $shown "$@"; }

has_card() {
  command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q '^GPU'
}

has_own_sources() {
  "$python" -m pip config list 2>/dev/null | grep -Eq '(index-url|find-links|no-index)='
}

# The package `uv` knows the address of PyTorch's builds for CPUs. It is put into a folder that is removed again.
install_cpu_build() {
  tools=$(mktemp -d)
  trap 'rm -rf "$tools"' EXIT
  "$python" -m pip install --disable-pip-version-check --quiet --target "$tools" uv >/dev/null 2>&1 || return 1
  # shellcheck disable=SC2086
  UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-60} "$tools/bin/uv" pip install --python "$python" --torch-backend=cpu --no-deps \
    $([ -t 1 ] || echo --quiet) -c "$constraints" torch
}

if "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
  exit 0
fi
if [ -n "${TORCH_INDEX:-}" ]; then
  say "PyTorch comes from the index of TORCH_INDEX"
  pip_install --index-url "$TORCH_INDEX" -c "$constraints" torch
  exit 0
fi
# Only there does pip choose a build for CUDA.
system="$(uname -s) $(uname -m)"
if [ "$build" = auto ]; then
  build=usual
  if [ "$system" = "Linux x86_64" ] && ! has_card; then
    if has_own_sources; then
      say "No NVIDIA card was found. pip has sources of its own here, and they decide which build of PyTorch comes."
      build=own
    else
      say "No NVIDIA card was found: PyTorch's build for CPUs. (make TORCH_BUILD=usual takes the build for CUDA.)"
      build=cpu
    fi
  fi
fi
if [ "$build" = cpu ]; then
  say "PyTorch for CPUs: 0.2 GB to download, 0.8 GB on disk"
  if install_cpu_build; then
    exit 0
  fi
  say "That build could not be fetched, and the usual one is taken."
  say "To stop this, press Ctrl-C. Then find the address of the CPU builds on PyTorch's installation page, and run"
  say "  make demo TORCH_INDEX=ADDRESS"
  build=usual
  [ ! -t 1 ] || sleep 5
fi
if [ "$build" = usual ] && [ "$system" = "Linux x86_64" ]; then
  say "PyTorch for CUDA: 2.7 GB to download, about 6 GB on disk"
fi
pip_install -c "$constraints" torch
