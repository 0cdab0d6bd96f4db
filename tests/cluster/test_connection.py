"""The connection to Ray, with a stand-in of the package: no Ray is needed."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from fastsam3d.basics.processes.listening import listening_socket
from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.cluster.engines.connection import ATTEMPTS, connected, free_output
from fastsam3d.cluster.engines.ray_data import run_on_ray
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.ray_serve import serving
from fastsam3d.errors import UserError
from fastsam3d.jobs.request import request_with


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


def test_ray_prints_nothing_to_the_results_and_the_caller_may(ray, monkeypatch, capsys):
    context = SimpleNamespace(enable_progress_bars=True, print_on_execution_start=True)
    seen = []

    class Data:
        """A dataset whose tasks are done where they are asked for."""

        def map_batches(self, *_arguments: Any, **_options: Any) -> Data:
            return self

        def iter_batches(self, **_options: Any) -> Any:
            for name in ("a", "b"):
                seen.append(context.enable_progress_bars)
                print("a message of Ray")
                yield {"rows": [json.dumps([{"name": name}])]}
            print("a message of Ray")

    class Remote:
        """A class or method of a remote actor: every call is done here, and nothing comes of it."""

        def __getattr__(self, _name: str) -> Remote:
            return self

        def __call__(self, *_arguments: Any, **_options: Any) -> Remote:
            return self

    ray.remote, ray.get, ray.kill = Remote(), lambda value: value, lambda actor: None
    ray.data = SimpleNamespace(
        DataContext=SimpleNamespace(get_current=lambda: context),
        from_items=lambda *_arguments, **_options: Data(),
        ActorPoolStrategy=SimpleNamespace,
    )
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    for row in run_on_ray([Item("a", "a.png"), Item("b", "b.png")], SimpleNamespace(), BatchOptions(workers=(1, 1))):
        print(f"{row['name']} is done")
    assert capsys.readouterr().out == "a is done\nb is done\n"
    assert ray.shut_down == 1
    # The settings of Ray Data are those of the batch while it runs, and the program's own afterwards.
    assert seen == [False, False]
    assert context.enable_progress_bars and context.print_on_execution_start


@pytest.fixture
def serve(ray, monkeypatch):
    """A Ray Serve whose deployment fails as `error` says."""
    serve = SimpleNamespace(error=None, stopped=0, start=lambda **_options: print("a message of Ray"))

    def run(*_arguments: Any, **_options: Any) -> None:
        if serve.error is not None:
            raise serve.error

    def shutdown() -> None:
        serve.stopped += 1

    serve.run, serve.shutdown, ray.serve = run, shutdown, serve
    monkeypatch.setitem(sys.modules, "ray.serve", serve)
    monkeypatch.setattr("fastsam3d.cluster.service.ray_serve.application_of", lambda *_arguments: None)
    return serve


def served(tmp_path, **options: Any) -> Any:
    with closing(listening_socket("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"port": port, "store": str(tmp_path / "store"), **options}
    return serving(ServeOptions(**options), request_with(device="cpu"))


def test_a_service_on_ray_is_stopped_at_the_end_and_the_caller_may_print(serve, ray, tmp_path, capsys):
    with served(tmp_path) as address:
        print(address)
    assert capsys.readouterr().out == f"{address}\n"
    assert (serve.stopped, ray.shut_down) == (1, 1)


def test_replicas_that_do_not_start_are_told_in_a_sentence(serve, ray, tmp_path):
    serve.error = RuntimeError("Deploying application fastsam3d failed:\nThe deployments are UNHEALTHY.")
    told = pytest.raises(UserError, match=r"cannot be started on Ray \(The deployments are UNHEALTHY\.\)")
    with told, served(tmp_path):
        raise AssertionError("not reached")
    assert (serve.stopped, ray.shut_down) == (1, 1)


def test_a_port_that_is_taken_is_told_before_ray_is_started(serve, ray, tmp_path):
    with closing(listening_socket("127.0.0.1", 0)) as taken:
        taken.listen()
        refused = pytest.raises(UserError, match="cannot serve at 127")
        with refused, served(tmp_path, port=taken.getsockname()[1]):
            raise AssertionError("not reached")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"), served(tmp_path, store=str(tmp_path / "file" / "x")):
        raise AssertionError("not reached")
    assert ray.calls == []


def test_a_library_may_ask_whether_the_log_is_a_terminal(capsys):
    with free_output():
        assert not sys.stdout.isatty()
        print("a message of Ray", flush=True)
    assert capsys.readouterr().out == ""
