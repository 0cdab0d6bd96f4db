"""The job of one object, called from Python."""

from __future__ import annotations

import json

import pytest
import torch

from fastsam3d.basics.threads.adaptation import AdaptedThreads
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import Silent
from fastsam3d.jobs.objects import run_object
from fastsam3d.jobs.report import device_name
from fastsam3d.jobs.running import accelerated


def test_files_and_report_of_one_object(ask, vase, listener, tmp_path):
    result = run_object(ask("o", image_path=str(vase), mask_index=1), listener=listener)
    assert result.name == "vase_1"
    assert {path.name for path in result.paths} == {"vase_1.glb", "vase_1_points.ply", "report.json"}
    assert all(path.parent == tmp_path / "o" and path.stat().st_size for path in result.paths)
    stored = json.loads((tmp_path / "o" / "report.json").read_text())
    assert stored["objects"][0]["name"] == "vase_1" and stored["inputs"]["mask"] == str(vase / "1.png")
    assert stored["settings"]["samplers"]["ss_sampler"]["inference_steps"] == 4
    assert stored["warnings"] == listener.warnings == []
    assert listener.steps[0] == ("loading mini", None, None) and listener.steps[-1] == ("writing", None, None)
    assert ("structured latents", 4, 4) in listener.steps


def test_a_job_computes_on_the_threads_that_it_asks_for_and_puts_the_number_back(ask, vase):
    before, seen = torch.get_num_threads(), set()

    class Looking(Silent):
        def step(self, text, done=None, total=None):
            seen.add(torch.get_num_threads())

    result = run_object(ask("o", image_path=str(vase), threads=3), listener=Looking())
    assert seen == {3}
    assert torch.get_num_threads() == before
    assert result.report["device"] == "cpu (3 threads)" and result.report["settings"]["threads"] == 3


def test_a_job_looks_at_the_load_before_it_runs_and_at_every_step(ask, vase, listener, monkeypatch):
    told = []
    monkeypatch.setattr(AdaptedThreads, "look", lambda self: told.append(len(listener.steps)))
    run_object(ask("o", image_path=str(vase), threads="auto"), listener=listener)
    steps = [index for index, (_, done, _) in enumerate(listener.steps) if done is not None]
    assert told == [1, *steps]  # the first look is before the first step of the run, and after "loading"


def test_a_number_that_the_load_changed_is_in_the_report():
    threads = AdaptedThreads(4)
    threads.least, threads.most = 1, 4
    assert device_name(torch.device("cpu"), threads) == "cpu (1 to 4 threads)"


def test_nothing_is_loaded_for_inputs_that_cannot_be_used(ask, vase, loads, tmp_path):
    with pytest.raises(UserError, match=r"there is no mask 7\.png"):
        run_object(ask("o", image_path=str(vase), mask_index=7))
    assert loads == [] and not (tmp_path / "o").exists()


def test_one_pipeline_serves_several_jobs_and_counts_each_alone(ask, vase, loads):
    def wanted(name, index):
        return ask(name, image_path=str(vase), mask_index=index, acceleration="fast")

    first = wanted("a", 0)
    with accelerated(first) as pipeline:
        shared = [run_object(request, pipeline) for request in (first, wanted("b", 1))]
        assert loads == ["mini"]
    alone = run_object(wanted("c", 1))
    assert loads == ["mini", "mini"]
    meshes = [path.read_bytes() for run in (shared[1], alone) for path in run.paths if path.suffix == ".glb"]
    assert len(meshes) == 2 and meshes[0] == meshes[1]
    stages = [run.report["acceleration"]["stages"] for run in (*shared, alone)]
    assert stages[0]["sparse_structure"]["evaluations"] == stages[1]["sparse_structure"]["evaluations"] > 0
    assert stages[1] == stages[2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"acceleration": "fast"}, "loaded for acceleration=off, but the job asks for acceleration=fast"),
        ({"samplers": {"ss_sampler": {"inference_steps": 5}}}, r"model\.ss_sampler\.inference_steps=4, .*=5"),
        ({"formats": ("mesh",)}, "formats="),
    ],
)
def test_a_pipeline_for_other_settings_is_refused(ask, vase, values, expected, tmp_path):
    with accelerated(ask("a")) as pipeline, pytest.raises(UserError, match=expected):
        run_object(ask("b", image_path=str(vase), **values), pipeline)
    assert not (tmp_path / "b").exists()


def test_advice_reaches_the_listener_and_the_report(ask, vase, listener):
    request = ask("o", image_path=str(vase), acceleration={"step_caching": {"enabled": True, "stride": 6}})
    result = run_object(request, listener=listener)
    assert listener.warnings == result.report["warnings"] == list(request.warnings) != []
