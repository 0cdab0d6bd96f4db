from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from evaluation_stand_in import StandIn, make_view, with_error

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.basics.record_log import RecordLog
from fastsam3d.cli.commands.evaluation.tune import main
from fastsam3d.errors import UserError
from fastsam3d.evaluation.measuring import methods
from fastsam3d.evaluation.tuning import calibration as calibration_module
from fastsam3d.evaluation.tuning.calibration import Calibration
from fastsam3d.evaluation.tuning.options import TuneOptions
from fastsam3d.evaluation.tuning.preset_file import preset_text
from fastsam3d.evaluation.tuning.search import Axis, Score, Search
from fastsam3d.evaluation.tuning.space import axes_of, complete, starts_of
from fastsam3d.evaluation.tuning.tune import changes, identity_of, tune

GRID = [Axis(name, tuple({f"{name}.level": level} for level in range(4))) for name in "abc"]
SAVED, LOST = {"a": 3, "b": 2, "c": 1}, {"a": 5, "b": 2, "c": 2}


def toy(budget, log=None):
    """Cost 20 less 3a + 2b + c, loss 5a + 2b + 2c: with a budget of 10 the best is a=0, b=3, c=2."""

    def evaluate(settings, best):
        levels = {key[0]: value for key, value in settings.items()}
        if levels == {"a": 1, "b": 1, "c": 1}:
            raise UserError("not together")
        if log is not None:
            log.append(levels)
        loss = sum(LOST[name] * level for name, level in levels.items())
        return Score(20 - sum(SAVED[name] * level for name, level in levels.items()), budget - loss, -loss)

    return evaluate


def test_descent_reaches_the_best_point_and_scores_nothing_twice():
    log = []
    search = Search(GRID[1:], toy(10, log), limit=100)
    assert search.run([(0, 0)]) == (3, 2)
    assert search.score.cost == 20 - 8
    assert len(log) == len({tuple(sorted(levels.items())) for levels in log})


def test_a_move_may_jump_over_a_level_that_is_not_possible():
    def evaluate(settings, best):
        level = settings["a.level"]
        if level == 1:
            raise UserError("not this one")
        return Score(10 - level, 1.0, 0.0)

    assert Search(GRID[:1], evaluate, limit=9).run([(0,)]) == (3,)


def test_limit_start_and_budget():
    log = []
    assert Search(GRID, toy(100, log), limit=4).run([(0, 0, 0), (1, 0, 0)]) is not None
    assert len(log) == 4
    with pytest.raises(UserError, match="not even the most careful"):
        Search(GRID, toy(-1), limit=9).run([(0, 0, 0)])


def test_at_equal_cost_quality_decides_and_an_incomplete_score_never_wins():
    base = Score(10.0, 1.0, 0.9)
    assert Score(10.02, 0.5, 0.92).beats(base)
    assert not Score(10.02, 0.5, 0.9).beats(base)
    assert not Score(10.2, 0.5, 0.99).beats(base)
    assert Score(9.0, 0.0, 0.1).beats(base)
    assert not Score(9.0, -0.01, 0.1).beats(base)
    assert not Score(9.0, 1.0, 0.1, complete=False).beats(base)


def test_settings_of_a_technique_that_is_off_are_left_out():
    axes = [Axis("x", ({"t.enabled": False}, {"t.enabled": True})), Axis("y", ({"t.k": 1}, {"t.k": 2}))]
    search = Search(axes, toy(1), limit=1)
    assert search.settings((0, 1)) == {"t.enabled": False} or search.settings((0, 1)) == {}
    assert search.settings((1, 1)) == {"t.enabled": True, "t.k": 2}
    assert changes({"t.enabled": True, "u.k": 1}, {"u.k": 2}) == "-t, u.k=2"


ONE_A_STAGE = (
    ("step_caching", "multistep"),
    ("multistep", "exact_layout"),
    ("latent_step_caching", "adaptive_caching", "latent_multistep"),
)


def test_every_start_and_every_single_change_is_a_valid_preset():
    axes = axes_of(25, 25)
    search = Search(axes, toy(1), limit=1)
    points = starts_of(axes)
    for index, axis in enumerate(axes):
        points += [(*points[2][:index], level, *points[2][index + 1 :]) for level in range(len(axis.levels))]
    for point in points:
        settings = complete(search.settings(point), 25, 25)
        if any(len([g for g in groups if f"{g}.enabled" in settings]) > 1 for groups in ONE_A_STAGE):
            with pytest.raises(UserError, match="switched on"):  # refused, and passed over by the search
                load_preset("exact", settings)
        else:
            load_preset("exact", settings)
    first = load_preset("exact", complete(search.settings(points[0]), 25, 25))
    assert first.enabled == load_preset("exact").enabled
    assert len({repr(search.settings(p)) for p in starts_of(axes)}) == len(starts_of(axes))


@pytest.fixture
def stand_in(monkeypatch):
    """A pipeline that is wrong by one voxel for every stride beyond 2 and skips as many steps."""

    @contextmanager
    def attached(method, pipeline):
        stride = method.overrides.get("step_caching.stride", 1)
        with with_error(pipeline, 1 / 64 * max(stride - 2, 0), 25 // stride):
            yield None

    monkeypatch.setattr(methods.Method, "attached", attached)
    return StandIn()


def stride_only(monkeypatch):
    from fastsam3d.evaluation.tuning import tune as module

    axes = [axis for axis in axes_of(25, 25) if "stride" in axis.name or "plain steps" in axis.name]
    axes = [Axis(axis.name, axis.levels if "stride" in axis.name else axis.levels[:1]) for axis in axes]
    monkeypatch.setattr(module, "axes_of", lambda *steps: axes)
    monkeypatch.setattr(calibration_module, "POINTS", 500)
    monkeypatch.setattr(calibration_module, "TOLERANCE", 1e9)  # its processor time says nothing


def test_the_boldest_stride_within_the_budget_is_found_and_resumed(stand_in, monkeypatch, tmp_path):
    stride_only(monkeypatch)
    # The stand-in's box is about 40 voxels wide. One more on three sides leaves (40/41)^3 = .93 in common, which is
    # within the budget, two more (40/42)^3 = .86, which is not.
    options = TuneOptions(objects=2, target_fidelity=0.9, target_f1_drop=50.0, target_iou_drop=1.0)
    identity = identity_of(stand_in, options)
    log = RecordLog(tmp_path / "p.jsonl", identity)
    lines = []
    settings, score = tune(stand_in, options, log, make_view, lines.append)
    assert settings["step_caching.stride"] == 3
    assert score.details["fidelity"] == pytest.approx(0.93, abs=0.01)
    assert any("too lossy" in line for line in lines)

    calls = len(stand_in.calls)
    again = tune(stand_in, options, RecordLog(tmp_path / "p.jsonl", identity), make_view)
    assert again[0] == settings
    assert len(stand_in.calls) - calls == 3  # "off" on both objects, and `exact` once to warm up
    with pytest.raises(UserError, match=r"seed was 0 and is 1.*resume=false"):
        RecordLog(tmp_path / "p.jsonl", identity | {"seed": 1})

    text = preset_text("mine", settings, score, options, "tune objects=2", identity)
    (tmp_path / "mine.yaml").write_text(text)
    config = load_preset(tmp_path / "mine.yaml")
    assert (config.name, config["step_caching"].stride, config["exact"].zero_condition) == ("mine", 3, True)
    assert "tune objects=2" in text
    assert "calibration objects" in text


@pytest.mark.parametrize(("judge", "stride"), [("off", 3), ("limit", 5), ("both", 3)])
def test_the_judge_decides_which_result_fidelity_is_to(stand_in, monkeypatch, tmp_path, judge, stride):
    stride_only(monkeypatch)
    plain = methods.Method.attached

    @contextmanager
    def attached(method, pipeline):
        # The limit is two voxels wider than "off", as the result of stride 4 is.
        with with_error(pipeline, 2 / 64, 25) if method.preset == "limit" else plain(method, pipeline):
            yield None

    monkeypatch.setattr(methods.Method, "attached", attached)
    options = TuneOptions(objects=2, target_fidelity=0.9, target_f1_drop=50.0, target_iou_drop=1.0, judge=judge)
    log = RecordLog(tmp_path / "p.jsonl", identity_of(stand_in, options))
    if judge == "both":
        # Stride 2 is two voxels from the limit, and stride 4 two from "off": only 3 is near both.
        settings, score = tune(stand_in, options, log, make_view)
        assert (settings["step_caching.stride"], score.details["fidelity"]) == (3, pytest.approx(0.93, abs=0.01))
        return
    settings, _ = tune(stand_in, options, log, make_view)
    assert settings["step_caching.stride"] == stride


def test_bad_options_are_named(tmp_path):
    with pytest.raises(UserError, match="one of off, limit, both"):
        main(["judge=truth"])
    with pytest.raises(UserError, match=r"ends in \.yaml"):
        main([f"output={tmp_path / 'preset.json'}"])
    with pytest.raises(UserError, match="from 0 to 1"):
        main(["target_fidelity=1.2"])


def test_log_keeps_whole_lines_after_an_interruption(tmp_path):
    path = tmp_path / "log.jsonl"
    RecordLog(path, {"seed": 1}).append([{"kind": "a", "x": 1}])
    with path.open("a") as stream:
        stream.write('{"kind": "a", "x"')
    log = RecordLog(path, {"seed": 1})
    log.append([{"kind": "a", "x": 2}])
    assert [r["x"] for r in RecordLog(path, {"seed": 1}).select(kind="a")] == [1, 2]
    assert json.loads(path.read_text().splitlines()[0]) == {"seed": 1}
    assert RecordLog(path, {"seed": 2}, resume=False).records == []


def test_cost_compares_the_same_objects_and_charges_for_overhead():
    def record(slat, cpu, seconds=1.0):
        parts = {"ss": 1.0, "slat": slat, "rest": 0.0, "seconds_ss": seconds, "seconds_slat": seconds}
        return {"values": {"2": parts | {"seconds_rest": 0.0, "cpu_seconds": cpu}}}

    calibration = Calibration(StandIn(), TuneOptions(objects=2), RecordLog(None, {}), make_view)
    calibration.exact_records = [record(10.0, 2.0), record(30.0, 2.0)]
    calibration.prices = {"ss": 1.0, "slat": 1.0, "rest": 0.0}
    calibration.exact_cost = 2.0
    # Half of the second stage's operations: 1 + 1 / 2, on the small object alone and on both.
    assert calibration._cost([record(5.0, 1.0)]) == pytest.approx(1.5)
    assert calibration._cost([record(5.0, 1.0), record(15.0, 1.0)]) == pytest.approx(1.5)
    # Twice the processor time of `exact` for it: charged as 2 x 2 / 1.2 instead.
    assert calibration._cost([record(5.0, 4.0)]) == pytest.approx(4 / 1.2)
