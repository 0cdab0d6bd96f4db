"""The hosts: kinds of language models that can be accelerated. A host does not depend on any technique."""

from __future__ import annotations

from typing import Any

from fastsam3d.mllm.host import Host
from fastsam3d.mllm.hosts.llama import LlamaHost

_HOSTS: list[type[Host]] = [LlamaHost]


def hosts() -> tuple[type[Host], ...]:
    """Registered hosts, in the order in which they are asked: the last one that was registered is the first."""
    return tuple(_HOSTS)


def register_host(host: type[Host]) -> type[Host]:
    """Adds a host, which is asked before all others, and returns it. Can be used as a decorator of the class."""
    if host not in _HOSTS:
        _HOSTS.insert(0, host)
    return host


def remove_host(host: type[Host]) -> None:
    """Removes a host. Nothing happens if it is not registered."""
    if host in _HOSTS:
        _HOSTS.remove(host)


def recognised(model: Any) -> Host | None:
    """Returns a host for a model, or None if no host knows it. Hosts look at attributes and import no package.

    A model that is built around a language model names it as `accelerated_part`. The host is then for that part.
    """
    part = getattr(model, "accelerated_part", model)
    return next((host(part) for host in _HOSTS if host.recognises(part)), None)
