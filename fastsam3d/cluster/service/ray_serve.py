"""The service on Ray Serve: an ingress that receives requests, and replicas that compute.

A job is accepted when it is on disk. The ingress gives it to a replica. If the replica dies, another one gets the job.
After a restart, the ingress goes on with all jobs that have not ended. Ingress and replicas use the same store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastsam3d.basics.optional import optional_module
from fastsam3d.basics.processes.listening import listening_socket, web_address
from fastsam3d.cluster.engines.connection import connected, free_output, quiet_environment, quiet_logs
from fastsam3d.cluster.service.accepting import Service
from fastsam3d.cluster.service.application import create_application
from fastsam3d.cluster.service.batching import sample_together, wanted_of, with_sampled
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.running import AGAIN, JobRunner
from fastsam3d.cluster.service.store import WAITING, JobStore
from fastsam3d.cluster.service.uploads import request_of
from fastsam3d.errors import UserError
from fastsam3d.jobs.request import Request
from fastsam3d.jobs.running import computing_threads

logger = logging.getLogger(__name__)

NAME, REPLICAS, INGRESS = "fastsam3d", "Reconstruction", "Ingress"
BATCH_WAIT = 0.05
"""Seconds that a first stage waits for others."""
SLOW = 300.0
"""Seconds in which a replica answers whether it is well, also while all cores are busy."""


def store_of(options: ServeOptions) -> JobStore:
    """Opens the store that the options name."""
    return JobStore(options.store, options.keep_minutes * 60, options.store_mib * 2**20)


class Reconstruction:
    """A replica: one loaded pipeline. Jobs take turns on it; first stages of waiting ones run as one batch."""

    def __init__(self, options: ServeOptions, request: Request) -> None:
        from ray import serve

        self._store, self._request = store_of(options), request
        self._runner = JobRunner(self._store, request, options.seconds)
        self._turn = threading.Lock()

        @serve.batch(max_batch_size=options.batch, batch_wait_timeout_s=BATCH_WAIT)
        async def sample(wanted: list[Any]) -> list[Any]:
            return await asyncio.to_thread(self._sampled, wanted)

        self._sample = sample

    async def run(self, name: str) -> None:
        """Runs a job to its end."""
        sampled = None
        with contextlib.suppress(Exception):  # an error is told when the job runs
            if await asyncio.to_thread(self._may_share, name):
                request = request_of(self._store, name, self._request)
                sampled = await self._sample(await asyncio.to_thread(wanted_of, request)) if request.layout else None
        await asyncio.to_thread(self._run, name, sampled)

    async def ready(self) -> bool:
        """Answers once the pipeline is loaded."""
        return True

    def _may_share(self, name: str) -> bool:
        """Tells whether the first stage of a job may run in a batch with others, and notes that it does.

        A batch that kills its worker does not say which of its jobs did it. So they all run alone after that, where
        attempts are counted.
        """
        if self._store.job(name)["kind"] != "object" or self._store.state(name).get("shared"):
            return False
        self._store.update(name, shared=True)
        return True

    def _sampled(self, wanted: list[Any]) -> list[Any]:
        with self._turn, computing_threads(self._request):
            return sample_together(self._runner.pipeline.pipeline, wanted)

    def _run(self, name: str, sampled: Any) -> None:
        with self._turn:
            self._runner.run(name, with_sampled(self._runner.pipeline, sampled))


class ReplicaExecutor:
    """Gives jobs to the replicas, and again if a replica dies.

    Args:
        store: of the jobs.
        handle: of the replicas.
        options: of the service.
    """

    def __init__(self, store: JobStore, handle: Any, options: ServeOptions) -> None:
        self.workers = options.workers[0] if options.workers else 1
        self.problem: Exception | None = None
        self._store, self._handle = store, handle
        self._closed = threading.Event()
        self._threads = ThreadPoolExecutor(options.queue, thread_name_prefix="job")
        self._ready = threading.Event()
        threading.Thread(target=self._look, daemon=True, name="ready").start()

    def submit(self, name: str) -> None:
        """See `fastsam3d.cluster.service.running.Executor`."""
        self._threads.submit(self._follow, name)

    def ready(self) -> bool:
        """See `fastsam3d.cluster.service.running.Executor`."""
        return self._ready.is_set()

    def close(self) -> None:
        """See `fastsam3d.cluster.service.running.Executor`. Jobs stay in the store, for the next ingress."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _follow(self, name: str) -> None:
        while not self._closed.is_set():  # the job itself counts how many workers it has killed
            try:
                self._handle.run.remote(name).result()
            except Exception as error:  # the replica died, or Serve is being stopped
                logger.warning("the job %s is given to another worker: %s", name, type(error).__name__)
            try:
                if self._store.state(name)["status"] not in WAITING:
                    return
            except UserError:
                return  # deleted
            # Also where the replica did not find the job, for example because its store is another folder.
            self._closed.wait(AGAIN)

    def _look(self) -> None:
        while not self._ready.is_set() and not self._closed.is_set():
            try:
                self._handle.ready.remote().result(timeout_s=SLOW)
                self._ready.set()
            except Exception:  # not there yet
                time.sleep(1.0)


def application_of(options: ServeOptions, request: Request, cuda: bool) -> Any:
    """Makes the Serve application: the ingress, bound to the replicas.

    Args:
        cuda: whether each replica needs a share of a GPU.
    """
    from ray import serve

    def build() -> Any:
        from ray import serve

        handle = serve.get_deployment_handle(REPLICAS, app_name=NAME)

        def make() -> Service:
            store = store_of(options)
            return Service(store, ReplicaExecutor(store, handle, options), request, options)

        return create_application(make, options)

    least, most = options.workers or (1, 1)
    replicas = (
        {"num_replicas": least}
        if least == most
        else {
            "autoscaling_config": {
                "min_replicas": least,
                "max_replicas": most,
                "target_ongoing_requests": options.batch,
            }
        }
    )
    common = {"health_check_timeout_s": SLOW, "graceful_shutdown_timeout_s": 5.0}
    actor = {"num_cpus": 1, "num_gpus": options.gpus_per_worker if cuda else 0}
    deployment: Any = serve.deployment  # its types name no `options`
    reconstruction = deployment(Reconstruction, name=REPLICAS).options(
        **common, **replicas, ray_actor_options=actor, max_ongoing_requests=2 * options.batch
    )
    ingress = deployment(serve.ingress(build)(), name=INGRESS).options(
        **common, num_replicas=1, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=10_000
    )
    return ingress.bind(reconstruction.bind(options, request))


@contextlib.contextmanager
def serving(options: ServeOptions, request: Request) -> Iterator[str]:
    """Runs the service for a `with` block; yields its address.

    Raises:
        UserError: Ray is not installed or cannot be started, the address is taken, the folder of the jobs cannot be
            made, or the replicas do not start.
    """
    quiet_environment()
    for module in ("ray", "ray.serve"):
        optional_module(module, "engine=ray", "ray")
    import ray
    from ray import serve

    if options.address is None and not os.environ.get("RAY_ADDRESS") and not ray.is_initialized():
        # All of it is on this machine: these mistakes are told before Ray is started.
        listening_socket(options.host, options.port).close()
        store_of(options)
    cuda = request.device_name().startswith("cuda")
    most = (options.workers or (1, 1))[1]
    with quiet_logs(), contextlib.ExitStack() as stack:
        with free_output():
            stack.enter_context(connected(options.address, most, cuda, options.object_store_mib))
            try:
                serve.start(proxy_location="HeadOnly", http_options={"host": options.host, "port": options.port})
                stack.callback(_without_output, serve.shutdown)
                serve.run(application_of(options, request, cuda), name=NAME, route_prefix="/")
            except Exception as error:  # Ray says only that a part did not start
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
                raise UserError(
                    f"The service cannot be started on Ray ({reason}). With engine=inline, the same options tell what "
                    "is wrong."
                ) from error
        yield web_address(options.host, options.port)


def _without_output(call: Callable[[], Any]) -> None:
    with free_output():
        call()


def serve_on_ray(options: ServeOptions, request: Request, tell: Callable[[str], None]) -> None:
    """Serves until the process is interrupted.

    Args:
        tell: called with the address.

    Raises:
        UserError: see `serving`.
    """
    with serving(options, request) as address:
        tell(address)
        threading.Event().wait()
