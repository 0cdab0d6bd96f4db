"""Replayed evaluations against ordinary ones, on a tape that behaves as a CUDA graph does (`graph_stand_in`)."""

from __future__ import annotations

import gc
import logging
import weakref

import numpy as np
import pytest
import torch
from graph_stand_in import StandIn

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.exact.graphs.replay import WORTHWHILE, Evaluation, GraphReplay
from fastsam3d.diffusion.sites import CONDITIONAL, EvaluationState

GRAPHS = {"exact.cuda_graphs": True}
STAGE = "sparse_structure"


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr("fastsam3d.diffusion.exact.cuda_graphs.CudaCapture", StandIn)
    monkeypatch.setattr(StandIn, "made", [])
    return StandIn


def counts_of(acceleration):
    return acceleration.report().details[f"cuda_graphs.{STAGE}"]


def pictures(count):
    for index in range(count):
        image = np.random.default_rng(index).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        mask = np.zeros((48, 48), bool)
        mask[10:36, 8 + 3 * index : 36 + 2 * index] = True
        yield image, mask


def sampled(pipeline, picture, seed=0, **options):
    """The first stage's latents of an object."""
    condition = pipeline.embed_condition(STAGE, pipeline.preprocess(*picture))
    generator = torch.Generator().manual_seed(seed)
    return pipeline.sample_sparse_structure(condition, generator, **options).latents


def close(a, b, tolerance=1e-5):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance)


def note_of(acceleration):
    notes = [note for note in acceleration.report().notes if note.startswith("CUDA graphs")]
    assert len(notes) == 1, notes
    return notes[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exact.joint_branches": False},
        {"exact.condition_cache": False},
        {"exact.zero_condition": False},
        {"exact.zero_condition": False, "exact.condition_cache": False},
        {"exact.shared_prefix": False, "exact.time_tables": False},
    ],
    ids=lambda changes: "+".join(changes) or "all",
)
def test_several_objects_in_a_row_equal_ordinary_runs(make_pipeline, stand_in, changes):
    reference, pipeline = make_pipeline(), make_pipeline()
    with accelerate(reference, "exact", **changes), accelerate(pipeline, "exact", **changes, **GRAPHS) as acceleration:
        for seed, picture in enumerate(pictures(3)):
            close(sampled(pipeline, picture, seed), sampled(reference, picture, seed))
        # Steps with guidance and without; once for all objects.
        assert len(stand_in.made[0].recordings) == 2
        # The first evaluation of each object is an ordinary one, and so are those before a recording is worth it.
        assert note_of(acceleration).endswith("recorded")
        replayed, total = counts_of(acceleration)["replayed"], 3 * 9
        assert 0.7 * total < replayed <= total - 3
        assert f"{replayed} of {total} evaluations replayed, 2 recorded" in note_of(acceleration)


def test_without_time_tables_not_a_bit_differs(make_pipeline, stand_in):
    reference, pipeline = make_pipeline(), make_pipeline()
    changes = {"exact.time_tables": False}
    with accelerate(reference, "exact", **changes), accelerate(pipeline, "exact", **changes, **GRAPHS):
        for seed, picture in enumerate(pictures(2)):
            expected, actual = sampled(reference, picture, seed), sampled(pipeline, picture, seed)
            assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_off_with_graphs_alone_equals_the_plain_pipeline(make_pipeline, stand_in):
    reference, pipeline = make_pipeline(), make_pipeline()
    with accelerate(pipeline, "off", **GRAPHS):
        for seed, picture in enumerate(pictures(2)):
            expected, actual = sampled(reference, picture, seed), sampled(pipeline, picture, seed)
            assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert stand_in.made[0].released == 1


@pytest.mark.parametrize(
    "preset", ["balanced", "dmd", "guidance_reuse", "taylorseer", "easycache", "few_step_shortcut"]
)
def test_forecasts_may_hold_earlier_velocities(make_pipeline, stand_in, preset):
    reference, pipeline = make_pipeline(), make_pipeline()
    for own in (reference, pipeline):
        own.models["ss_generator"].inference_steps = 17
    with accelerate(reference, preset) as plain, accelerate(pipeline, preset, **GRAPHS) as acceleration:
        for seed, picture in enumerate(pictures(2)):
            close(sampled(pipeline, picture, seed), sampled(reference, picture, seed), 1e-4)
        counts = acceleration.report().stages[STAGE]
        assert counts == plain.report().stages[STAGE]
        assert counts_of(acceleration)["replayed"] > 0


def test_whole_objects_and_batches(make_pipeline, stand_in):
    reference, pipeline = make_pipeline(), make_pipeline()
    masks = [mask for _, mask in pictures(2)]
    image = next(pictures(1))[0]
    with accelerate(reference, "balanced"), accelerate(pipeline, "balanced", **GRAPHS) as acceleration:
        for _ in range(2):  # one object, two at once (which run as ever, and leave no stale keys behind), and again
            expected, actual = reference.run(image, masks[0]), pipeline.run(image, masks[0])
            close(actual.structure.latents, expected.structure.latents, 1e-4)
            torch.testing.assert_close(actual.feats, expected.feats, rtol=1e-3, atol=1e-3)
            for a, b in zip(
                pipeline.sample_structures(image, masks), reference.sample_structures(image, masks), strict=True
            ):
                close(a.structure.latents, b.structure.latents, 1e-4)
        close(sampled(pipeline, (image, masks[1]), layout=False), sampled(reference, (image, masks[1]), layout=False))
        assert counts_of(acceleration)["refusal"] is None


def test_removed_everything_is_released_and_as_before(make_pipeline, stand_in):
    pipeline = make_pipeline()
    picture = next(pictures(1))
    plain = sampled(pipeline, picture)
    acceleration = accelerate(pipeline, "exact", **GRAPHS)
    sampled(pipeline, picture)
    replay = acceleration._attached.runners[STAGE].replay
    kept = [weakref.ref(tensor) for tensor in replay._tensors()]
    assert len(kept) == 2 * 2 * (2 + 1)  # blocks, streams, keys with values and the constant
    assert all(ref() is not None for ref in kept)
    assert len(stand_in.made[0].recordings) == 1  # two steps without guidance are not worth one
    acceleration.remove()
    gc.collect()
    assert stand_in.made[0].recordings == []
    assert all(ref() is None for ref in kept)
    again = sampled(pipeline, picture)
    assert all(torch.equal(again[name], plain[name]) for name in plain)


@pytest.mark.parametrize("how", ["changed", "moved"])
def test_other_weights_drop_the_recordings(make_pipeline, stand_in, how):
    reference, pipeline = make_pipeline(), make_pipeline()
    picture = next(pictures(1))
    with accelerate(reference, "exact"), accelerate(pipeline, "exact", **GRAPHS):
        sampled(pipeline, picture)
        for own in (reference, pipeline):
            backbone = own.models["ss_generator"].reverse_fn.backbone
            if how == "changed":
                backbone.load_state_dict({name: 1.1 * value for name, value in backbone.state_dict().items()})
            else:
                for parameter in backbone.parameters():
                    old, parameter.data = parameter.data, parameter.data.clone()
                    old.fill_(float("nan"))  # as another owner of the memory would
        for seed in range(2):
            close(sampled(pipeline, picture, seed), sampled(reference, picture, seed))
        assert stand_in.made[0].released == 1


def test_another_precision_drops_recordings_whose_casts_are_gone(make_pipeline, stand_in):
    pipeline, picture = make_pipeline(), next(pictures(1))
    pipeline.autocast = torch.bfloat16
    without = {"exact.condition_cache": False, "exact.zero_condition": False}
    with accelerate(pipeline, "exact", **without, **GRAPHS) as acceleration:
        first = sampled(pipeline, picture)
        recorded = counts_of(acceleration)["recorded"]
        assert recorded > 0
        assert stand_in.made[0].released == 0
        pipeline.autocast = None
        sampled(pipeline, picture)
        assert stand_in.made[0].released == 1
        pipeline.autocast = torch.bfloat16
        close(sampled(pipeline, picture), first, 1e-2)
        assert stand_in.made[0].released == 2
        assert counts_of(acceleration)["recorded"] == 3 * recorded


def test_what_cannot_be_recorded_runs_as_ever_and_is_said_once(make_pipeline, stand_in, caplog):
    reference, pipeline = make_pipeline(), make_pipeline()
    block = pipeline.models["ss_generator"].reverse_fn.backbone.blocks[1]
    forward = block.forward

    def waiting(x, *args):
        assert float(x["shape"].sum()) != 0.1234
        return forward(x, *args)

    vars(block)["forward"] = waiting
    with (
        caplog.at_level(logging.WARNING),
        accelerate(reference, "exact"),
        accelerate(pipeline, "exact", **GRAPHS) as acceleration,
    ):
        for seed, picture in enumerate(pictures(2)):
            close(sampled(pipeline, picture, seed), sampled(reference, picture, seed), 0.0)
        assert "rest in sparse_structure: recording failed (RuntimeError" in note_of(acceleration)
        assert counts_of(acceleration)["replayed"] == 0
    assert sum("CUDA graphs" in record.message for record in caplog.records) == 1


def test_a_recording_has_to_be_worth_it(make_pipeline, stand_in):
    pipeline = make_pipeline()
    pipeline.models["ss_generator"].inference_steps = 3
    with accelerate(pipeline, "exact", **GRAPHS) as acceleration:
        picture = next(pictures(1))
        sampled(pipeline, picture)
        assert counts_of(acceleration)["recorded"] == 0
        for _ in range(3):
            sampled(pipeline, picture)
        assert counts_of(acceleration)["recorded"] > 0
        acceleration.reset_report()
        assert "0 of 0 evaluations replayed, 0 recorded" in note_of(acceleration)


def test_where_graphs_rest_the_report_says_why(make_pipeline, stand_in, monkeypatch):
    for preset, changes in (("first_block_cache", {}), ("paper", {"exact_layout": True})):
        with accelerate(make_pipeline(), preset, **changes, **GRAPHS) as acceleration:
            inside = next(iter(changes), preset)
            assert note_of(acceleration) == f"CUDA graphs rest in {STAGE}: {inside} works inside the network"
    staged = make_pipeline()
    staged.residency = object()
    with accelerate(staged, "exact", **GRAPHS) as acceleration:
        assert "a graph holds their addresses" in note_of(acceleration)
    monkeypatch.undo()
    with accelerate(make_pipeline(), "exact", **GRAPHS) as acceleration:
        assert note_of(acceleration) == f"CUDA graphs rest in {STAGE}: cpu is not a CUDA device"
    with accelerate(make_pipeline(), "exact") as acceleration:
        assert not any("CUDA graphs" in note for note in acceleration.report().notes)


class Doubled:
    """The simplest network: twice the state, plus time, plus the condition's sum."""

    def __init__(self, frozen_time=False):
        self.frozen_time, self.calls = frozen_time, 0
        self.time = None

    def __call__(self, x, time, condition):
        self.calls += 1
        when = self.time if self.frozen_time else time
        return ({"shape": 2 * x["shape"] + when + condition.sum()},)


def replayed(network, replay, value, time, condition):
    x = {"shape": torch.full((1, 3), value)}
    network.time = time
    with torch.no_grad():
        asked = Evaluation(network, x, time, condition, frozenset({CONDITIONAL}), None, ahead=WORTHWHILE)
        return replay.run(asked)[0]["shape"]


def test_inputs_are_read_and_outputs_handed_over_anew():
    replay, network = GraphReplay(STAGE, EvaluationState(), StandIn(), lambda: ()), Doubled()
    condition = torch.ones(1, 2)
    results = [replayed(network, replay, float(i), 0.125 * i, condition) for i in range(5)]
    for index, result in enumerate(results):
        assert torch.equal(result, torch.full((1, 3), 2.0 * index + 0.125 * index + 2.0)), index
    assert network.calls == 3  # ordinary, to warm up, to record
    assert (replay.ordinary, replay.recorded, replay.replayed) == (1, 1, 4)
    # Another object: its condition is read, and its first evaluation is an ordinary one.
    replay.finish()
    other = torch.full((1, 2), 5.0)
    assert [float(replayed(network, replay, 1.0, 0.5, other)[0, 0]) for _ in range(2)] == [12.5, 12.5]
    assert (replay.ordinary, replay.recorded, replay.replayed) == (2, 1, 5)
    # Another shape takes the place of the first, so that memory does not grow with the number of shapes.
    longer = torch.ones(1, 3)
    assert [float(replayed(network, replay, 1.0, 0.5, longer)[0, 0]) for _ in range(2)] == [5.5, 5.5]
    assert [float(replayed(network, replay, 1.0, 0.5, condition)[0, 0]) for _ in range(2)] == [4.5, 4.5]
    assert (replay.recorded, len(replay._graphs), replay.capture.released) == (3, 1, 2)
    # Several objects at once run as ever.
    two = torch.ones(2, 2)
    assert [float(replayed(network, replay, 1.0, 0.5, two)[0, 0]) for _ in range(3)] == [6.5, 6.5, 6.5]
    assert replay.recorded == 3


def test_the_stand_in_shows_what_a_graph_would_get_wrong():
    """A number of the host is a constant of the recording, and buffers of the recording do not last."""
    replay, network = GraphReplay(STAGE, EvaluationState(), StandIn(), lambda: ()), Doubled(frozen_time=True)
    condition = torch.zeros(1, 2)
    results = [replayed(network, replay, 0.0, 0.25 * i, condition) for i in range(4)]
    assert [float(result[0, 0]) for result in results] == [0.0, 0.25, 0.25, 0.25]
    graph = next(iter(replay._graphs.values()))
    handed = graph.recording.outputs[0]["shape"]
    assert torch.isfinite(handed).all()
    graph.recording.spoil()
    assert torch.isnan(handed).all()


def test_with_gradients_nothing_is_recorded():
    replay, network = GraphReplay(STAGE, EvaluationState(), StandIn(), lambda: ()), Doubled()
    for _ in range(3):
        x, condition = {"shape": torch.ones(1, 3)}, torch.ones(1, 2)
        replay.run(Evaluation(network, x, 0.5, condition, frozenset({CONDITIONAL}), None, ahead=50))
    assert (replay.ordinary, replay.replayed) == (3, 0)
