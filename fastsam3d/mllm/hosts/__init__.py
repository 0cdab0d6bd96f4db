"""Language models that can be accelerated. A host says where things are in one kind; it knows no technique."""

from __future__ import annotations

from typing import Any

from fastsam3d.mllm.host import Host
from fastsam3d.mllm.hosts.llama import LlamaHost

_HOSTS: list[type[Host]] = [LlamaHost]


def hosts() -> tuple[type[Host], ...]:
    """Registered hosts, in the order in which they are asked: those of other packages first, the newest foremost."""
    return tuple(_HOSTS)


def register_host(host: type[Host]) -> type[Host]:
    """Adds a host, which is asked before all others; also as a decorator of its class."""
    if host not in _HOSTS:
        _HOSTS.insert(0, host)
    return host


def remove_host(host: type[Host]) -> None:
    """Takes a host out again; nothing happens where it is not registered."""
    if host in _HOSTS:
        _HOSTS.remove(host)


def recognised(model: Any) -> Host | None:
    """The host of a model, recognised by its attributes and never by importing its package; None without one.

    A model that is built around a language model names it as `accelerated_part`, which then takes its place.
    """
    part = getattr(model, "accelerated_part", model)
    return next((host(part) for host in _HOSTS if host.recognises(part)), None)
