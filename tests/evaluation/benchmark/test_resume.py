from __future__ import annotations

from contextlib import nullcontext

import pytest
from evaluation_stand_in import POINTS, StandIn, make_view, with_error

from fastsam3d.basics.record_log import RecordLog
from fastsam3d.errors import UserError
from fastsam3d.evaluation.benchmark import experiments
from fastsam3d.evaluation.benchmark.result import load_result, result_of
from fastsam3d.evaluation.benchmark.run import BenchmarkOptions, identity_of, run_benchmark
from fastsam3d.evaluation.measuring import methods
from fastsam3d.evaluation.measuring.methods import resolve_methods
from fastsam3d.evaluation.measuring.scene_runner import SceneCase
from fastsam3d.sam3d.scene import reconstruct as scene
from fastsam3d.sam3d.scene.reconstruct import Scene, SceneObject

ERRORS = {"balanced": 0.05}


@pytest.fixture
def stand_in(monkeypatch):
    def attached(method, pipeline):
        return nullcontext() if method.name == "off" else with_error(pipeline, ERRORS[method.name])

    monkeypatch.setattr(methods.Method, "attached", attached)
    return StandIn()


def options_of(**changes):
    return BenchmarkOptions(
        **{"methods": ("balanced",), "objects": 2, "scenes": 0, "points": POINTS, "noise_row": False, **changes}
    )


def log_of(stand_in, options, path):
    return RecordLog(path, identity_of(stand_in, options, resolve_methods(options.methods)), resume=options.resume)


def test_an_interrupted_run_goes_on_and_gives_what_an_uninterrupted_one_gives(stand_in, tmp_path):
    options, path = options_of(), tmp_path / "records.jsonl"

    def interrupted(seed):
        if path.read_text().count('"kind": "object"') == 1:
            raise KeyboardInterrupt
        return make_view(seed)

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(stand_in, options, interrupted, log=log_of(stand_in, options, path))
    assert len(load_result(tmp_path)["objects"]) == 2  # one object, two methods: a report can be made of it
    before = len(stand_in.calls)
    resumed = run_benchmark(stand_in, options, make_view, log=log_of(stand_in, options, path))
    assert len(stand_in.calls) - before == 2 + 2  # both methods warm up, and run on the second object alone
    whole = run_benchmark(StandIn(), options, make_view)
    for a, b in zip(resumed["rows"], whole["rows"], strict=True):
        assert {k: a[k] for k in ("method", "viou", "fidelity_viou", "nfe_ss")} == {
            k: b[k] for k in ("method", "viou", "fidelity_viou", "nfe_ss")
        }

    before = len(stand_in.calls)
    more = options_of(objects=3)
    assert run_benchmark(stand_in, more, make_view, log=log_of(stand_in, more, path))["meta"]["objects"] == 3
    assert len(stand_in.calls) - before == 2 + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 8}, "seed was 7 and is 8"),
        ({"methods": ("balanced", "paper")}, "methods.paper was None and is different"),
        ({"guidance": (2.0, 7.0)}, r"guidance was \[None\] and is \[2.0, 7.0\]"),
    ],
)
def test_records_of_another_run_are_refused_and_can_be_thrown_away(stand_in, tmp_path, change, message):
    path = tmp_path / "records.jsonl"
    log = log_of(stand_in, options_of(), path)
    log.append([{"kind": "object", "guidance": 2, "object_seed": 1, "methods": []}])
    with pytest.raises(UserError, match=message):
        log_of(stand_in, options_of(**change), path)
    assert log_of(stand_in, options_of(**change, resume=False), path).records == []


def test_other_weights_are_another_run_and_other_code_is_noted(stand_in, tmp_path):
    path = tmp_path / "records.jsonl"
    log = log_of(stand_in, options_of(), path)
    identity = {**log.identity, "code": "first"}
    # Nothing was measured yet: no part of the run has the first code.
    assert "earlier_code" not in RecordLog(path, identity | {"code": "second"}).identity
    log = RecordLog(path, identity | {"code": "second"})
    log.append([{"kind": "object", "guidance": 2, "object_seed": 1, "methods": []}])
    for code, earlier in (("third", ["second"]), ("third", ["second"]), ("fourth", ["second", "third"])):
        log = RecordLog(path, identity | {"code": code})
        assert (log.identity["code"], log.identity["earlier_code"]) == (code, earlier)
        assert len(log.records) == 1
    stand_in.models["ss_generator"].reverse_fn.backbone.weight.data += 1
    with pytest.raises(UserError, match="weights was"):
        log_of(stand_in, options_of(), path)


def test_a_method_that_cannot_run_is_left_out_of_all_and_stops_a_run_that_names_it(stand_in, monkeypatch):
    def attached(method, pipeline):
        if method.name != "off":
            raise UserError("this pipeline cannot do that")
        return nullcontext()

    monkeypatch.setattr(methods.Method, "attached", attached)
    chosen = [methods.Method("off", "off"), methods.Method("paper", "paper", optional=True),
              methods.Method("fewer_steps@paper", "exact", matched_to="paper", optional=True)]  # fmt: skip
    result = run_benchmark(stand_in, options_of(), make_view, methods=chosen)
    assert [row["method"] for row in result["rows"]] == ["off"]
    assert result["meta"]["left_out"] == {
        "paper": "this pipeline cannot do that",
        "fewer_steps@paper": "paper was left out",
    }
    with pytest.raises(UserError, match="cannot do that"):
        run_benchmark(stand_in, options_of(), make_view)


def one_by_one(pipeline, image, masks, *, seed, pointmap):
    """The scene path of a pipeline that runs its objects one after the other."""
    objects = [SceneObject(str(i), pipeline.run(image, mask, seed=seed)) for i, mask in enumerate(masks)]
    return Scene(tuple(objects))


def test_scenes_are_timed_and_kept(stand_in, monkeypatch):
    monkeypatch.setattr(scene, "reconstruct_scene", one_by_one)
    view = make_view(1)

    def make_scene(seed):
        from fastsam3d.evaluation.metrics.true_shape import reference_shape

        reference = reference_shape(view.object, points=POINTS)
        return SceneCase(view.image, [view.mask, view.mask], None, [reference] * 2, [view.pose] * 2)

    options = options_of(objects=1, scenes=1)
    log = RecordLog(None, identity_of(stand_in, options, resolve_methods(options.methods)))
    result = run_benchmark(stand_in, options, make_view, log=log, make_scene=make_scene)
    off, balanced = result["rows"]
    assert off["scene_seconds"] > 0
    assert off["scene_speedup"] == 1.0
    # The stand-in's box and the ball of the truth stand before the same camera; balanced moves it by 0.05.
    assert 1 > off["scene_iou_3d"] > balanced["scene_iou_3d"] > 0.5
    assert result["meta"]["scenes"] == 1
    calls = len(stand_in.calls)
    run_benchmark(stand_in, options, make_view, log=log, make_scene=make_scene)
    assert len(stand_in.calls) - calls == 2  # only the warm-up
    assert result_of(log)["rows"][0]["scene_seconds"] == off["scene_seconds"]


def test_ablation_has_the_eight_choices():
    chosen = {method.name: method for method in experiments.ablation_methods()}
    assert list(chosen) == ["off", "none", "SS", "SLaT", "Mesh", "SS+SLaT", "SS+Mesh", "SLaT+Mesh", "SS+SLaT+Mesh"]

    def on(name):
        settings = chosen[name].settings()
        return [group for group in ("step_caching", "adaptive_caching", "token_carving", "token_aggregation")
                if settings[group]["enabled"]]  # fmt: skip

    assert on("none") == []
    assert on("SS") == ["step_caching"]
    assert on("SLaT+Mesh") == ["adaptive_caching", "token_carving", "token_aggregation"]
    assert len(on("SS+SLaT+Mesh")) == 4
    assert chosen["none"].settings()["exact"]["condition_cache"]


def test_sweeps_vary_one_setting_of_presets_that_have_it():
    for name, sweep in experiments.SWEEPS.items():
        chosen = experiments.sweep_methods(name)
        assert chosen[0].name == "off"
        assert len(chosen) > len(sweep.points)
        assert len({repr(method.settings()) for method in chosen}) == len(chosen)
    released = {m.name: m.settings() for m in experiments.sweep_methods("stride", ("paper_release",))}
    assert released["paper_release@5"]["released_step_caching"]["stride"] == 5
    strides = experiments.sweep_methods("stride", ("paper",))
    assert [m.settings()["step_caching"]["stride"] for m in strides[1:]] == [2, 3, 4, 5, 6]
    assert experiments.point_of("balanced@4") == ("balanced", 4.0)
    assert experiments.point_of("fewer_steps@fast") is None
    assert experiments.point_of("paper") is None
    with pytest.raises(UserError, match="varies nothing that exact switch on"):
        experiments.sweep_methods("stride", ("exact",))
    with pytest.raises(UserError, match="sweep=speed is unknown"):
        experiments.sweep_methods("speed")
