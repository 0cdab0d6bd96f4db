"""The service in one process, without Ray: the plain twin of the one on Ray Serve."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from fastsam3d.basics.optional import optional_module
from fastsam3d.basics.processes.listening import listening_socket, web_address
from fastsam3d.cluster.service.accepting import Service
from fastsam3d.cluster.service.application import create_application
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.running import JobRunner, LocalExecutor
from fastsam3d.cluster.service.store import JobStore
from fastsam3d.jobs.request import Request


def plain_application(options: ServeOptions, request: Request) -> Any:
    """Makes the ASGI application whose jobs run one after another in a thread.

    Raises:
        UserError: FastAPI is not installed, or the folder of the jobs cannot be made.
    """
    store = JobStore(options.store, options.keep_minutes * 60, options.store_mib * 2**20)

    def make() -> Service:
        executor = LocalExecutor(lambda: JobRunner(store, request, options.seconds))
        return Service(store, executor, request, options)

    return create_application(make, options)


def serve_here(options: ServeOptions, request: Request, tell: Callable[[str], None]) -> None:
    """Serves until the process is interrupted.

    Args:
        tell: called with the address.

    Raises:
        UserError: FastAPI or uvicorn is not installed, the folder of the jobs cannot be made, or the address is taken.
    """
    uvicorn = optional_module("uvicorn", "the service", "ray")
    with closing(listening_socket(options.host, options.port)) as listener:
        application = plain_application(options, request)
        tell(web_address(options.host, options.port))
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", access_log=False))
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
