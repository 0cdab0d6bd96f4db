"""Pipelines that can be accelerated. A host says where things are in one kind of pipeline; it knows no technique."""

from __future__ import annotations

from typing import Any

from fastsam3d.diffusion.host import Host
from fastsam3d.diffusion.hosts.native.host import NativeHost
from fastsam3d.diffusion.hosts.sam3d_objects.host import Sam3dObjectsHost
from fastsam3d.diffusion.hosts.trellis.host import TrellisHost
from fastsam3d.errors import UserError

HOSTS: tuple[type[Host], ...] = (NativeHost, Sam3dObjectsHost, TrellisHost)
"""Known hosts, asked in this order."""


def find_host(pipeline: Any) -> Host:
    """The host of a pipeline, recognised by its attributes and never by importing its package.

    Raises:
        UserError: no host knows such a pipeline.
    """
    for host in HOSTS:
        if host.recognises(pipeline):
            return host(pipeline)
    known = ", ".join(host.name for host in HOSTS)
    raise UserError(
        f"cannot accelerate a {type(pipeline).__module__}.{type(pipeline).__qualname__}: known pipelines are {known}. "
        "Give the pipeline object itself, for instance fastsam3d.load_pipeline('mini')."
    )


def describe_differences(pipeline: Any) -> list[str]:
    """What a pipeline has other than this library knows it: missing attributes, changed signatures.

    Ask this before `accelerate` about a pipeline that is newer than this library. One line each; empty where all is as
    known.

    Raises:
        UserError: no host knows such a pipeline.
    """
    return find_host(pipeline).describe_differences()


__all__ = ["HOSTS", "Host", "describe_differences", "find_host"]
