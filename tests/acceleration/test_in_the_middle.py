"""Accelerating, removing and running in the middle of a run, in other threads, and on copies that share networks."""

from __future__ import annotations

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.errors import UserError
from fastsam3d.sam3d.pipeline.pipeline import Pipeline


def same(a, b):
    return torch.equal(a.feats, b.feats) and np.array_equal(a.mesh.vertices, b.mesh.vertices)


def at_second_step(action):
    def report(stage, done, total):
        if (stage, done) == ("sparse_structure", 2):
            action()

    return report


def test_accelerating_waits_for_a_plain_run_of_another_thread(pipeline, picture):
    plain, running = pipeline.run(*picture, seed=1), threading.Event()
    slow = at_second_step(lambda: (running.set(), time.sleep(0.2)))
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(pipeline.run, *picture, seed=1, progress=slow)
        assert running.wait(60)
        with accelerate(pipeline, "fast") as acceleration:
            assert acceleration.report().objects == 0
            accelerated = pipeline.run(*picture, seed=1)
            assert acceleration.report().objects == 1
        assert same(result.result(), plain)
    assert not same(accelerated, plain)


def test_every_run_is_wholly_plain_or_wholly_accelerated(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "fast"):
        accelerated = pipeline.run(*picture, seed=1)
    stop = threading.Event()

    def work():
        results = []
        while not stop.is_set():
            results.append(pipeline.run(*picture, seed=1))
        return results

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work) for _ in range(2)]
        try:
            for _ in range(6):
                with accelerate(pipeline, "fast"):
                    time.sleep(0.05)
                time.sleep(0.05)
        finally:
            stop.set()
        results = [result for future in futures for result in future.result()]
    kinds = [(same(result, plain), same(result, accelerated)) for result in results]
    assert len(kinds) > 4 and all(sum(kind) == 1 for kind in kinds)


def test_a_run_that_waited_for_the_removal_is_plain_and_not_counted(pipeline, picture):
    plain, running = pipeline.run(*picture, seed=1), threading.Event()
    acceleration = accelerate(pipeline, "fast")
    slow = at_second_step(lambda: (running.set(), time.sleep(0.2)))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pipeline.run, *picture, seed=1, progress=slow)
        assert running.wait(60)
        removal = pool.submit(acceleration.remove)
        while acceleration._runs._changing is None and not removal.done():
            time.sleep(0.001)
        run = pipeline.run  # what is attached now, called after it is gone
        second = run(*picture, seed=1)
        removal.result()
        assert not same(first.result(), plain)
    assert same(second, plain)
    assert acceleration.report().objects == 1


def test_changes_from_a_progress_callback_are_refused(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)

    def change():
        with pytest.raises(UserError, match="accelerate is not possible in the middle of a run"):
            accelerate(pipeline, "fast")

    assert same(pipeline.run(*picture, seed=1, progress=at_second_step(change)), plain)
    acceleration = accelerate(pipeline, "fast")
    expected = pipeline.run(*picture, seed=1)

    def remove():
        change()
        with pytest.raises(UserError, match="remove is not possible in the middle of a run"):
            acceleration.remove()

    assert same(pipeline.run(*picture, seed=1, progress=at_second_step(remove)), expected)
    assert acceleration.active
    acceleration.remove()
    assert same(pipeline.run(*picture, seed=1), plain)


@pytest.mark.parametrize("moment", [("preprocess", 1), ("sparse_structure", 2), ("structured_latent", 2)])
def test_nested_runs_of_an_accelerated_pipeline_are_refused(pipeline, picture, moment):
    nested = []

    def begin(stage, done, total):
        if (stage, done) == moment and not nested:
            nested.append(moment)
            with pytest.raises(UserError, match="in the middle of run of the same accelerated pipeline"):
                pipeline.run(255 - picture[0], picture[1], seed=2)

    with accelerate(pipeline, "paper", **{"token_aggregation.minimum_voxels": 0}) as acceleration:
        expected = pipeline.run(*picture, seed=1)
        assert same(pipeline.run(*picture, seed=1, progress=begin), expected)
        assert nested and acceleration.report().objects == 2


def test_a_stage_begun_in_the_same_stage_is_refused(pipeline, picture):
    condition = pipeline.embed_condition("sparse_structure", pipeline.preprocess(*picture))

    def begin():
        with pytest.raises(UserError, match="begun in the middle of a run"):
            pipeline.sample_sparse_structure(condition, torch.Generator().manual_seed(3))

    with accelerate(pipeline, "fast"):
        expected = pipeline.run(*picture, seed=1)
        assert same(pipeline.run(*picture, seed=1, progress=at_second_step(begin)), expected)


def test_nested_plain_runs_are_as_ever(pipeline, picture):
    plain, inner = pipeline.run(*picture, seed=1), []
    nested = at_second_step(lambda: inner.append(pipeline.run(*picture, seed=1)))
    assert same(pipeline.run(*picture, seed=1, progress=nested), plain)
    assert same(inner[0], plain)


def test_an_exception_in_a_callback_leaves_the_pipeline_free(pipeline, picture):
    with pytest.raises(ZeroDivisionError), accelerate(pipeline, "fast"):
        pipeline.run(*picture, seed=1, progress=at_second_step(lambda: 1 / 0))
    accelerate(pipeline, "fast").remove()


def test_a_shallow_copy_of_an_accelerated_pipeline_is_refused(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "fast"), pytest.raises(UserError, match=r"take copy\.deepcopy"):
        copy.copy(pipeline)
    twin = copy.copy(pipeline)
    assert same(twin.run(*picture, seed=1), plain)
    twin.config = None
    assert pipeline.config is not None


def test_pipelines_that_share_networks_are_not_accelerated_twice(pipeline, picture):
    other = Pipeline(pipeline.models, pipeline.condition_embedders, pipeline.config)
    with accelerate(pipeline, "balanced"):
        expected = pipeline.run(*picture, seed=1)
        with pytest.raises(UserError, match="part of another pipeline or model that is accelerated"):
            accelerate(other, "balanced")
        assert same(pipeline.run(*picture, seed=1), expected)
    with accelerate(other, "balanced"):
        assert same(other.run(*picture, seed=1), expected)
