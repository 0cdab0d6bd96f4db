"""Weights that wait on the host for their stage: on a pretended device, and on a real one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pretend_cuda import DEVICE, is_marked, place, pretend_cuda
from small_pipeline import picture, small_pipeline
from torch import nn

import fastsam3d
from fastsam3d.sam3d.memory.residency import RUN_ORDER, StagedWeights
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

FORMATS = ("mesh", "gaussian")


def networks_of(pipeline: Pipeline) -> dict[str, nn.Module]:
    return {**dict(pipeline.models.items()), **pipeline.condition_embedders}


class Watched(StagedWeights):
    """Notes which networks were on the device together."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.together: set[tuple[str, ...]] = set()

    def _fetch(self, name: str) -> None:
        super()._fetch(name)
        self.together.add(tuple(sorted(self.on_device)))


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("preset", ["off", "balanced"])
def test_every_network_is_there_when_it_is_used(overlap: bool, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, pipeline = small_pipeline(), small_pipeline()
    staged = Watched(networks_of(pipeline), DEVICE, overlap)
    with fastsam3d.accelerate(reference, preset):
        expected = reference.run(*picture(), formats=FORMATS)
    pipeline.residency, pipeline.device = staged, DEVICE
    # A network that is used while it is on the host would meet tensors on the device, which is an error.
    with pretend_cuda(monkeypatch), fastsam3d.accelerate(pipeline, preset):
        actual = pipeline.run(*picture(), formats=FORMATS)
        assert is_marked(actual.feats)
    torch.testing.assert_close(actual.feats, expected.feats)
    torch.testing.assert_close(actual.gaussian.xyz, expected.gaussian.xyz)
    assert staged.on_device == ()
    assert {name for group in staged.together for name in group} == set(RUN_ORDER)
    assert max(len(group) for group in staged.together) == (2 if overlap else 1)


def test_the_decoder_is_there_in_the_middle_of_the_generators_run(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, pipeline = small_pipeline(), small_pipeline()
    with fastsam3d.accelerate(reference, "fast3dcache"):
        expected = reference.run(*picture())
    pipeline.residency, pipeline.device = StagedWeights(networks_of(pipeline), DEVICE, False), DEVICE
    with pretend_cuda(monkeypatch), fastsam3d.accelerate(pipeline, "fast3dcache"):
        actual = pipeline.run(*picture())
    torch.testing.assert_close(actual.feats, expected.feats)
    assert pipeline.residency.on_device == ()


def test_decoders_that_are_not_asked_for_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = small_pipeline()
    staged = Watched(networks_of(pipeline), DEVICE, True)
    pipeline.residency, pipeline.device = staged, DEVICE
    with pretend_cuda(monkeypatch):
        pipeline.run(*picture(), formats=("mesh",))
    assert not any("slat_decoder_gs" in group for group in staged.together)


def test_weights_on_the_host_are_refused_by_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = place(small_pipeline())
    StagedWeights({"ss_decoder": pipeline.models["ss_decoder"]}, torch.device("cpu"))
    for tensor in (*pipeline.models["ss_decoder"].parameters(), *pipeline.models["ss_decoder"].buffers()):
        tensor.__dict__.clear()
    with pretend_cuda(monkeypatch), pytest.raises(RuntimeError, match="two devices"):
        pipeline.run(*picture())


def test_weights_leave_also_after_an_error() -> None:
    networks = {"ss_generator": nn.Linear(3, 3), "ss_decoder": nn.Linear(3, 3)}
    before = {name: network.weight.detach().clone() for name, network in networks.items()}
    staged = StagedWeights(networks, torch.device("cpu"))

    def fail() -> None:
        with staged.running(), staged.using("ss_generator"):
            assert staged.on_device == ("ss_generator", "ss_decoder")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert staged.on_device == ()
    for name, network in networks.items():
        assert torch.equal(network.weight, before[name])


def test_nested_use_keeps_the_network() -> None:
    staged = StagedWeights({"ss_generator": nn.Linear(3, 3)}, torch.device("cpu"))
    with staged.using("ss_generator"):
        with staged.using("ss_generator"):
            pass
        assert staged.on_device == ("ss_generator",)
    assert staged.on_device == ()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("overlap", [True, False])
def test_staged_weights_on_cuda(overlap: bool) -> None:
    device = torch.device("cuda", 0)
    results, bytes_between_runs = [], []
    for stage_weights in (False, True):
        pipeline = small_pipeline()
        networks = networks_of(pipeline)
        start = torch.cuda.memory_allocated(device)
        if stage_weights:
            residency = StagedWeights(networks, device, overlap)
            pipeline.residency = residency
            assert all(p.is_pinned() for network in networks.values() for p in network.parameters())
        else:
            for network in networks.values():
                network.to(device)
        pipeline.device = device
        for _ in range(2):  # the second run copies again
            result = pipeline.run(*picture(), formats=FORMATS)
        results.append((result.structure.latents["shape"].cpu(), result.mesh.vertices, result.gaussian.xyz.cpu()))
        del result
        bytes_between_runs.append(torch.cuda.memory_allocated(device) - start)
        if stage_weights:
            assert residency.on_device == ()
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-5)
    assert results[1][1].shape == results[0][1].shape
    torch.testing.assert_close(results[1][2], results[0][2], rtol=1e-3, atol=1e-4)
    # What stays on the device between runs is the weights: all of them, or none.
    weights = sum(p.nbytes for network in networks_of(small_pipeline()).values() for p in network.parameters())
    assert bytes_between_runs[0] > 0.9 * weights
    assert bytes_between_runs[1] < 0.1 * weights
