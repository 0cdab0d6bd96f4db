"""Every tensor of a run is where it belongs, and the first stage never waits: on a device that is pretended."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pretend_cuda import is_marked, mark, place, pretend_cuda
from small_pipeline import SETTINGS, STEPS, picture, small_pipeline

import fastsam3d

PRESETS = ("off", "exact", "balanced", "paper", "fast")


def accelerated(pipeline: Any, preset: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fastsam3d.accelerate(pipeline, preset, **(SETTINGS if preset in ("paper", "fast") else {}))


def waits_during(pipeline: Any, name: str, mode: Any) -> list[str]:
    """A list that fills with what the sampler of a stage waits for."""
    generator, found = pipeline.models[name], []
    sample = generator.sample

    def watched(*args: Any, **kwargs: Any) -> Any:
        before = len(mode.waits)
        result = sample(*args, **kwargs)
        pairs = zip(mode.waits[before:], mode.places[before:], strict=True)
        found.extend(f"{what} at {where}" for what, where in pairs)
        return result

    vars(generator)["sample"] = watched
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_whole_runs_keep_to_the_device(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, pipeline = small_pipeline(), place(small_pipeline())
    formats = ("mesh", "gaussian")
    with accelerated(reference, preset):
        expected = reference.run(*picture(), formats=formats)
    with pretend_cuda(monkeypatch) as mode, accelerated(pipeline, preset):
        structure_waits = waits_during(pipeline, "ss_generator", mode)
        result = pipeline.run(*picture(), formats=formats)
        assert structure_waits == []
        assert is_marked(result.feats)
        assert is_marked(result.structure.coords)
        assert mode.waits, "the pretended device sees nothing"
    np.testing.assert_allclose(result.mesh.vertices, expected.mesh.vertices, atol=1e-5)
    torch.testing.assert_close(result.gaussian.xyz, expected.gaussian.xyz)


def test_voxels_may_be_handed_in_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = place(small_pipeline())
    with pretend_cuda(monkeypatch), accelerated(pipeline, "paper"):
        structure = pipeline.run(*picture()).structure
        condition = pipeline.embed_condition("structured_latent", pipeline.preprocess(*picture()))
        results = []
        for coords in (structure.coords, structure.coords.cpu()):
            given = dataclasses.replace(structure, coords=coords)
            results.append(pipeline.sample_slat(condition, given, torch.Generator().manual_seed(0)))
        assert is_marked(results[1])
        assert torch.equal(*results)


def test_latent_stage_waits_for_tables_and_decisions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = place(small_pipeline())
    with pretend_cuda(monkeypatch) as mode, accelerated(pipeline, "exact"):
        found = waits_during(pipeline, "slat_generator", mode)
        pipeline.run(*picture())
    outside = [entry for entry in found if "sparse_tensor.py" not in entry]
    # Before and after the loop, not in it: the number of cells, and what the report counts.
    assert len(outside) <= 4, outside
    assert len(found) <= 14, found


@pytest.mark.parametrize("technique", ["adaptive_caching", "easycache"])
def test_decisions_of_the_latent_stage_wait_once_a_step(technique: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = place(small_pipeline())
    with pretend_cuda(monkeypatch) as mode, fastsam3d.accelerate(pipeline, "off", **{technique: True}):
        found = waits_during(pipeline, "slat_generator", mode)
        pipeline.run(*picture())
    decisions = [entry for entry in found if "maths/" in entry or "techniques/" in entry]
    assert 0 < len(decisions) <= STEPS, decisions


class Watched:
    """In the place of `CudaCapture`: calls again what it recorded, and notes what a graph could not hold."""

    refusal, recordings = None, 0
    mode: Any = None
    found: ClassVar[list[Any]] = []

    def __init__(self, device: Any) -> None:
        assert device.type == "cuda"

    def record(self, function: Any) -> Watched:
        before = len(self.mode.waits), self.mode.crossings
        self.function, self.outputs = function, function()
        Watched.recordings += 1
        self.found += [*self.mode.places[before[0] :], *["crossing"] * (self.mode.crossings - before[1])]
        return self

    def replay(self) -> None:
        pass

    def release(self) -> None:
        pass


@pytest.mark.parametrize("changes", [{}, {"exact.joint_branches": False}, {"exact.condition_cache": False}])
def test_what_a_graph_records_neither_waits_nor_copies_from_the_host(
    changes: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastsam3d.diffusion.exact.cuda_graphs.CudaCapture", Watched)
    monkeypatch.setattr(Watched, "found", [])
    monkeypatch.setattr(Watched, "recordings", 0)
    pipeline = place(small_pipeline())
    inputs = picture()
    with pretend_cuda(monkeypatch) as mode:
        monkeypatch.setattr(Watched, "mode", mode)
        with fastsam3d.accelerate(pipeline, "exact", **changes, **{"exact.cuda_graphs": True}):
            for _ in range(3):
                condition = pipeline.embed_condition("sparse_structure", pipeline.preprocess(*inputs))
                pipeline.sample_sparse_structure(condition, torch.Generator().manual_seed(0))
        assert Watched.recordings == 2
        assert mode.crossings > 0, "the pretended device sees no copies"
    assert Watched.found == []


def test_pretended_device_refuses_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_cuda(monkeypatch):
        here, there = torch.ones(2), mark(torch.ones(2))
        with pytest.raises(RuntimeError, match="two devices"):
            here + there
        assert (there * torch.tensor(2.0)).device.type == "cuda"
        assert there.cpu().device.type == "cpu"
        with pytest.raises(TypeError):
            there.numpy()
