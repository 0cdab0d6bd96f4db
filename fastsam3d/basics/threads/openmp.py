"""Sets how the threads of OpenMP wait for one another, by environment variables that it reads when PyTorch is loaded.

A thread that waits may spin: this is quick, but keeps its core busy. Or it may sleep: this frees the core, but costs
some microseconds. By default GNU's library (libgomp, in PyTorch's packages for Linux) spins for 300,000 turns, several
milliseconds (GNU libgomp manual, GOMP_SPINCOUNT), and those of LLVM and Intel (macOS, Windows, conda) for 200
milliseconds (LLVM/OpenMP documentation, KMP_BLOCKTIME). On a busy machine the thread that the others wait for often
has no core to run on, because the waiting threads spin there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping

from fastsam3d.basics.threads.limits import CoreLimits, core_limits

NUMBER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
POLICY = "OMP_WAIT_POLICY"
SPINNING: Mapping[str, str] = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
"""Variables with the values that we set: turns, and milliseconds. docs/threads.md has the measurements."""


def set_openmp_defaults(environment: MutableMapping[str, str], limits: CoreLimits | None = None) -> dict[str, str]:
    """Sets variables of OpenMP that the user has not set in an environment; returns the variables that were set.

    Only the programs of this package call it, for their own process. It does nothing if PyTorch is loaded already,
    because then the variables have been read.

    Args:
        limits: limits of this process; None: they are read.
    """
    if "torch" in sys.modules:
        return {}
    limits = core_limits() if limits is None else limits
    added: dict[str, str] = {}
    if POLICY not in environment:
        added |= {name: value for name, value in SPINNING.items() if name not in environment}
    if limits.threads < len(limits.cores) and not any(name in environment for name in NUMBER):
        added[NUMBER[0]] = str(limits.threads)
    environment.update(added)
    return added


def waiting(environment: Mapping[str, str]) -> str:
    """Says how threads wait with the variables of an environment."""
    found = [name for name in (POLICY, *SPINNING) if name in environment]
    return ", ".join(f"{name}={environment[name]}" for name in found) or "as OpenMP does by default"
