"""First stages of different pictures as one batch: the same as alone, up to rounding."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ball_pipeline import HEIGHT, WIDTH, Ball, ball_pipeline, disc

from fastsam3d.cluster.service.batching import Wanted, sample_together, with_sampled
from fastsam3d.cluster.service.ray_serve import Reconstruction
from fastsam3d.cluster.service.store import JobStore
from fastsam3d.errors import OneAtATime
from fastsam3d.jobs.request import request_with


class Balls(Ball):
    """The same small ball for each object of a batch."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat([super(Balls, self).forward(own) for own in tokens.split(1)])


@pytest.fixture(scope="module")
def pipeline():
    pipeline = ball_pipeline()
    pipeline.models["ss_decoder"] = Balls()
    return pipeline


def wanted(shade: int, row: int, column: int, seed: int) -> Wanted:
    pixels = np.full((HEIGHT, WIDTH, 3), shade, np.uint8)
    pixels[disc(row, column)] = (255 - shade, 40, shade)
    return Wanted(pixels, disc(row, column), None, seed)


def test_objects_of_different_pictures_are_those_of_single_runs(pipeline):
    asked = [wanted(100, 20, 20, 1), wanted(30, 24, 40, 2), wanted(200, 22, 30, 1)]
    sampled = sample_together(pipeline, asked)
    for own, found in zip(asked, sampled, strict=True):
        (alone,) = pipeline.sample_structures(pipeline.share_picture(own.pixels), [own.mask], seed=own.seed)
        for name, latents in alone.structure.latents.items():
            # Measured: 1e-6 of the largest value. Other noise would differ by about 1.
            assert torch.allclose(found.structure.latents[name], latents, atol=1e-4), name
        assert torch.equal(found.generator.get_state(), alone.generator.get_state())
    first, third = (each.structure.latents["shape"] for each in (sampled[0], sampled[2]))
    assert not torch.allclose(first, third, atol=1e-3)  # another picture with the same seed


def test_one_request_runs_alone_with_the_bytes_of_a_single_run(pipeline):
    own = wanted(100, 20, 20, 1)
    assert sample_together(pipeline, [own]) == [None]
    running = SimpleNamespace(pipeline=pipeline)
    assert with_sampled(running, None) is running


@pytest.mark.parametrize("error", [OneAtATime("techniques"), ValueError("a defect")])
def test_what_cannot_be_batched_runs_alone(pipeline, monkeypatch, error):
    def refuse(*_inputs, **_options):
        raise error

    monkeypatch.setattr(pipeline, "sample_structures", refuse)
    assert sample_together(pipeline, [wanted(9, 20, 20, 1)] * 2) == [None, None]


def replica(store: JobStore, sample: Any, ran: list[Any]) -> Reconstruction:
    """A replica without Ray and without a pipeline."""
    made = object.__new__(Reconstruction)
    made._store, made._request, made._sample = store, request_with(device="cpu"), sample
    made._run = lambda name, sampled: ran.append(sampled)
    return made


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr("fastsam3d.cluster.service.ray_serve.wanted_of", lambda request: "inputs")
    store = JobStore(tmp_path)
    name = store.create("object", {}, [("picture.png", b""), ("mask.png", b"")])
    store.accept(name)
    return store, name


def test_a_job_runs_alone_after_a_batch_that_killed_its_worker(job):
    store, name = job
    asked, ran = [], []

    class Killed(BaseException):
        pass

    async def sample(wanted: Any) -> Any:
        asked.append(wanted)
        if len(asked) == 1:
            raise Killed
        return "sampled"

    with pytest.raises(Killed):
        asyncio.run(replica(store, sample, ran).run(name))
    assert store.state(name)["status"] == "queued" and ran == []
    asyncio.run(replica(store, sample, ran).run(name))
    assert asked == ["inputs"] and ran == [None]


def test_a_job_whose_inputs_raise_an_unknown_error_is_still_run(job):
    """There its attempts are counted; else it would be given to a worker for ever."""
    store, name = job
    ran = []

    async def sample(wanted: Any) -> Any:
        raise RuntimeError("a defect")

    asyncio.run(replica(store, sample, ran).run(name))
    assert ran == [None]
