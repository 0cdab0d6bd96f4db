"""How `CudaCapture` calls PyTorch, with PyTorch's part played by a stand-in: what the GPU does is in tests/device."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from fastsam3d.diffusion.exact.graphs import cuda_capture
from fastsam3d.diffusion.exact.graphs.cuda_capture import CudaCapture

GRAPH = inspect.signature(torch.cuda.graph.__init__)


class Stream:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class Played:
    """The calls of `torch.cuda` that a recording needs, written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.current = self.main = Stream(self.log, "main")
        for name in ("device", "stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, contextmanager(getattr(self, name)))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self.log, "side"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: vars(self).update(current=stream))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: self.log.append("pool") or (0, 1))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: self.log.append("empty"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        cuda_capture.recording_stream.cache_clear()

    def replay(self) -> None:
        self.log.append("replay")

    def device(self, device: torch.device) -> Any:
        assert str(device) == "cuda:1"
        yield

    def stream(self, stream: Stream) -> Any:
        before, self.current = self.current, stream
        yield
        self.current = before

    def graph(self, *args: Any, **kwargs: Any) -> Any:
        bound = GRAPH.bind(None, *args, **kwargs).arguments  # as PyTorch would read them
        assert bound["pool"] == (0, 1)
        assert bound["capture_error_mode"] == "thread_local"
        self.current = bound["stream"]
        self.log.append("begin")
        yield
        self.log.append("end")
        self.current = self.main  # not where an exception comes out, as in PyTorch


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield Played(monkeypatch)
    cuda_capture.recording_stream.cache_clear()


def test_a_call_warms_up_beside_and_is_then_recorded(played: Played) -> None:
    capture = CudaCapture("cuda:1")
    assert capture.refusal is None
    outputs = ({"shape": torch.ones(1)},)

    def function() -> Any:
        played.log.append(f"call on {played.current.name}, cache {torch.is_autocast_cache_enabled()}")
        return outputs

    before = torch.is_autocast_cache_enabled()
    recording = capture.record(function)
    call = "call on side, cache False"
    assert played.log == ["pool", "side waits for main", call, "main waits for side", "begin", call, "end"]
    assert recording.outputs is outputs
    assert played.current is played.main
    assert torch.is_autocast_cache_enabled() == before
    capture.record(function)
    assert played.log.count("pool") == 1  # one pool for all
    recording.replay()
    capture.release()
    capture.release()
    assert played.log[-2:] == ["replay", "empty"]


def test_a_recording_that_fails_leaves_streams_and_autocast_as_they_were(played: Played) -> None:
    def function() -> Any:
        if "begin" in played.log:
            raise RuntimeError("operation not permitted when stream is capturing")
        return ()

    before = torch.is_autocast_cache_enabled()
    with pytest.raises(RuntimeError, match="not permitted"):
        CudaCapture("cuda:1").record(function)
    assert played.current is played.main
    assert torch.is_autocast_cache_enabled() == before


def test_a_cpu_has_none() -> None:
    assert CudaCapture("cpu").refusal == "cpu is not a CUDA device"
    CudaCapture(torch.device("cpu")).release()
