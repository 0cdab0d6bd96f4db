"""A connection to Ray: to a cluster, or to a local Ray that is started and stopped."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from typing import Any

from fastsam3d.basics.threads.limits import core_limits
from fastsam3d.errors import UserError

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_BACKEND_LOG_LEVEL": "error",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "90",  # on a machine whose cores are busy the start takes long
}
ATTEMPTS = 3
"""Starts of a local Ray. It ends if its agents need more than 15 seconds, as on busy cores. Later starts are faster."""


def quiet_environment() -> None:
    """Sets variables of Ray that the user has not set; call it before Ray is imported."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)


@contextlib.contextmanager
def connected(address: str | None, workers: int, cuda: bool, store_mib: int) -> Iterator[None]:
    """Connects to Ray for a `with` block. If the program is connected already, that connection is used and kept.

    Args:
        address: of a cluster; None: that of the variable RAY_ADDRESS, or else a local Ray.
        workers: number of workers for which a local Ray has a core, whatever number of cores the machine has.
        cuda: whether workers compute on a GPU.
        store_mib: memory of a local Ray's object store.

    Raises:
        UserError: Ray cannot be started or reached.
    """
    import ray

    address = address or os.environ.get("RAY_ADDRESS") or None
    if ray.is_initialized():
        yield
        return
    silent: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        _connect(f"reached at {address}", 1, address=address, **silent)
    else:
        # One core more, for tasks that wait for the network.
        cores = max(workers + 1, core_limits().threads if cuda else 0)
        memory = store_mib * 2**20
        settings = {"num_cpus": cores, "object_store_memory": memory, "include_dashboard": False, **silent}
        _connect("started here", ATTEMPTS, **settings)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(what: str, attempts: int, **settings: Any) -> None:
    """Calls `ray.init`, again where it fails; UserError "Ray cannot be WHAT" after the last attempt."""
    import ray

    for attempt in range(1, attempts + 1):
        try:
            ray.init(**settings)
            return
        except Exception as error:  # Ray raises a plain Exception where its processes do not start in time
            ray.shutdown()
            reason = str(error)[:200]
            logger.warning("Ray cannot be %s, attempt %d of %d: %s", what, attempt, attempts, reason)
    raise UserError(f"Ray cannot be {what} ({reason}). engine=inline needs no Ray.")


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Leaves only errors in the logs of Ray."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data", "ray.serve")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def free_output() -> contextlib.AbstractContextManager[Any]:
    """Keeps what Ray prints off the standard output, which belongs to the results.

    For calls of Ray alone: what other code prints meanwhile goes to the log of this module, too.
    """
    return contextlib.redirect_stdout(_Log())


class _Log(io.TextIOBase):
    """A stream to the log of this module."""

    def write(self, text: str) -> int:
        """Logs a line."""
        if text.strip():
            logger.debug("%s", text.rstrip())
        return len(text)
