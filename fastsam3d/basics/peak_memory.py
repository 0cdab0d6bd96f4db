"""Measures peak memory: PyTorch's allocations on a CUDA device, or the memory of the process."""

from __future__ import annotations

import contextlib
import math
import threading
from pathlib import Path
from typing import Any

MEBIBYTE = 2**20
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_LOCK = threading.Lock()
_OPEN: list[PeakMemory] = []
"""Measurements that have begun and not ended. The system has one peak for all of them. Each new measurement sets this
peak back, so the others note its value first."""


class PeakMemory:
    """Context manager that measures the largest memory use inside it: `size` in bytes, 0 if it is not known.

    On a CUDA device this is what PyTorch allocated there. On any other device it is the resident memory of the whole
    process, with weights, interpreter and other threads: on Linux only, because other systems cannot set the peak back.
    Measurements may be nested and may overlap in several threads. They use the statistics of the system: on a CUDA
    device they call `torch.cuda.reset_peak_memory_stats`, so `torch.cuda.max_memory_allocated` starts again with every
    measurement. A program that calls this function itself inside a measurement makes `size` too small.

    Args:
        device: a `torch.device` or its name.
    """

    def __init__(self, device: Any) -> None:
        self.size = 0
        self._device = device
        self._cuda = str(device).startswith("cuda")
        self._known = False

    @property
    def mebibytes(self) -> float:
        """Returns `size` in MiB; NaN if it is not known."""
        return self.size / MEBIBYTE if self.size else math.nan

    def __enter__(self) -> PeakMemory:
        with _LOCK:
            for measurement in _OPEN:
                measurement._note()
            self.size = 0
            self._known = _reset_device(self._device) if self._cuda else _reset_process()
            _OPEN.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        with _LOCK:
            self._note()
            _OPEN.remove(self)

    def _note(self) -> None:
        if self._known:
            self.size = max(self.size, _peak_of_device(self._device) if self._cuda else _peak_of_process())


def _reset_device(device: Any) -> bool:
    import torch

    # A device that nothing has used yet has no statistics: its peak begins at zero.
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats(device)
    return True


def _peak_of_device(device: Any) -> int:
    import torch

    return int(torch.cuda.max_memory_allocated(device))


def _reset_process() -> bool:
    """Sets the peak of this process back to its present size; returns whether the system can."""
    try:
        _CLEAR.write_text("5")  # see proc_pid_clear_refs(5)
    except OSError:  # not Linux, or a container that forbids it
        return False
    return True


def _peak_of_process() -> int:
    """Returns the peak of the resident memory (VmHWM, which the system gives in KiB) in bytes; 0 if it is hidden."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return 1024 * int(_STATUS.read_text().split("VmHWM:")[1].split()[0])
    return 0
