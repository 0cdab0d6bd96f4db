"""A connection to Ray: to a cluster, or to a local Ray that is started and stopped."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from fastsam3d.basics.threads.limits import core_limits
from fastsam3d.errors import UserError

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_BACKEND_LOG_LEVEL": "error",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "300",  # on a machine whose cores are busy the start takes long
}


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
    try:
        if address is not None:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                # One core more, for tasks that wait for the network.
                num_cpus=max(workers + 1, core_limits().threads if cuda else 0),
                object_store_memory=store_mib * 2**20,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        what = f"reached at {address}" if address else "started here"
        raise UserError(f"Ray cannot be {what} ({str(error)[:200]}). engine=inline needs no Ray.") from None
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Ray's own messages off the standard output, which belongs to the results."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data", "ray.serve")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(_Log()):
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


class _Log:
    """A stream to the log of this module."""

    def write(self, text: str) -> int:
        """Logs a line."""
        if text.strip():
            logger.debug("%s", text.rstrip())
        return len(text)

    def flush(self) -> None:
        """Does nothing: a log needs no flushing."""
