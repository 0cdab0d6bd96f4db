"""Hosts: each knows where things are in one kind of pipeline. A host knows no technique."""

from __future__ import annotations

from typing import Any

from fastsam3d.diffusion.host import Host
from fastsam3d.diffusion.hosts.native.host import NativeHost
from fastsam3d.diffusion.hosts.sam3d_objects.host import Sam3dObjectsHost
from fastsam3d.diffusion.hosts.trellis.host import TrellisHost
from fastsam3d.diffusion.hosts.trellis2.host import Trellis2Host

_HOSTS: list[type[Host]] = [NativeHost, Sam3dObjectsHost, TrellisHost, Trellis2Host]


def hosts() -> tuple[type[Host], ...]:
    """Registered hosts in the order in which they are asked: the newest first, those of this package last."""
    return tuple(_HOSTS)


def register_host(host: type[Host]) -> type[Host]:
    """Adds a host, which is asked before all others; also as a decorator of its class."""
    if host not in _HOSTS:
        _HOSTS.insert(0, host)
    return host


def remove_host(host: type[Host]) -> None:
    """Removes a registered host. Does nothing for a host that is not registered."""
    if host in _HOSTS:
        _HOSTS.remove(host)


def recognised(pipeline: Any) -> Host | None:
    """The host of a pipeline, recognised by its attributes and never by importing its package; None without one."""
    return next((host(pipeline) for host in _HOSTS if host.recognises(pipeline)), None)
