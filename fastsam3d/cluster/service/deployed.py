"""The service as a Serve application that a cluster builds by its import path, as KubeRay's `RayService` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastsam3d.basics.options import parse_options
from fastsam3d.cluster.batch.running import on_one_thread
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.ray_serve import application_of
from fastsam3d.jobs.request import request_with


def application(arguments: Mapping[str, Any]) -> Any:
    """Builds the application.

    Args:
        arguments: `options`, keys of `ServeOptions` (where it listens is the cluster's); `settings`, as
            `fastsam3d.jobs.request.request_with` takes them.

    Raises:
        UserError: a value that cannot be used.
    """
    given = arguments.get("options", {})
    words = [f"{key}={'null' if value is None else value}" for key, value in given.items()]  # YAML's null is None
    options = parse_options(ServeOptions, words, "serve")
    options.token()
    settings: dict[str, Any] = {"device": "cuda", "output_dir": ".", **arguments.get("settings", {})}
    request = on_one_thread(request_with(**settings))
    return application_of(options, request, str(settings["device"]).startswith("cuda"))
