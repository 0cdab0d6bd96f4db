"""The connection to Ray, with a stand-in of the package: no Ray is needed."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from fastsam3d.cluster.engines.connection import ATTEMPTS, connected
from fastsam3d.errors import UserError


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Ray whose `init` fails as often as `fails` says; it records its calls."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray = SimpleNamespace(fails=0, calls=[], shut_down=0, is_initialized=lambda: False)

    def init(**settings: Any) -> None:
        ray.calls.append(settings)
        if len(ray.calls) <= ray.fails:
            raise Exception("The current node timed out during startup.")

    def shutdown() -> None:
        ray.shut_down += 1

    ray.init, ray.shutdown = init, shutdown
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def test_a_local_ray_that_does_not_start_in_time_is_started_again(ray):
    ray.fails = ATTEMPTS - 1
    with connected(None, workers=2, cuda=False, store_mib=100):
        assert len(ray.calls) == ATTEMPTS
        assert ray.calls[0]["num_cpus"] == 3 and ray.calls[0]["object_store_memory"] == 100 * 2**20
    assert ray.shut_down == ATTEMPTS  # after each failure, and at the end


def test_after_the_last_attempt_the_error_names_the_way_out(ray):
    ray.fails = ATTEMPTS
    message = r"cannot be started here \(The current node timed out.*engine=inline needs no Ray"
    with pytest.raises(UserError, match=message), connected(None, workers=2, cuda=False, store_mib=100):
        raise AssertionError("not reached")
    assert len(ray.calls) == ATTEMPTS


def test_a_cluster_that_cannot_be_reached_is_tried_once(ray):
    ray.fails = 1
    refused = pytest.raises(UserError, match=r"cannot be reached at 10\.0\.0\.1:6379")
    with refused, connected("10.0.0.1:6379", workers=2, cuda=False, store_mib=100):
        raise AssertionError("not reached")
    assert len(ray.calls) == 1
