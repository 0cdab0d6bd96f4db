"""Batches of objects under acceleration: each as if it were alone."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.diffusion.batched_policy import BatchedPolicy, batch_size
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step
from fastsam3d.errors import OneAtATime


class Threshold:
    """Runs the network where the state has grown by more than a tenth since it last ran, like an adaptive technique."""

    def __init__(self) -> None:
        self.last = None
        self.value = None

    def velocity(self, x, step, evaluate):
        size = float(x["shape"].norm())
        if self.last is None or size > 1.1 * self.last:
            self.last, self.value = size, evaluate(x).combined()
        return self.value


def network(x, tokens=None, **options):
    return GuidedVelocity({name: value * 2 for name, value in x.items()}, {n: v + 1 for n, v in x.items()})


def step(index: int) -> Step:
    return Step(index, (0.0, 0.5, 1.0), (True, True))


def test_every_object_decides_for_itself() -> None:
    runs = []

    def counted(x, tokens=None, **options):
        runs.append(batch_size(x))
        return network(x)

    states = [{"shape": torch.tensor([[[1.0], [growth]], [[2.0], [1.0]]])} for growth in (1.0, 3.0, 3.0)]
    together, alone = BatchedPolicy([Threshold(), Threshold()]), [Threshold(), Threshold()]
    for index, x in enumerate(states):
        batched = together.velocity(x, step(index), counted)
        for row, policy in enumerate(alone):
            single = policy.velocity({"shape": x["shape"][row : row + 1]}, step(index), network)
            assert torch.equal(batched["shape"][row : row + 1], single["shape"])
    # Both at first, then the one that grew, which costs a run of the batch, then none.
    assert runs == [2, 2]


def test_a_computed_step_is_the_pipelines_own() -> None:
    class Always:
        def velocity(self, x, step, evaluate):
            return evaluate(x).combined()

    def rounded(x, tokens=None, **options):
        answer = network(x)
        answer.guided = {name: value.half() for name, value in answer.combined().items()}
        return answer

    x = {"shape": torch.tensor([[[0.1]], [[0.7]]])}
    batched = BatchedPolicy([Always(), Always()]).velocity(x, step(0), rounded)["shape"]
    assert batched.tolist() == (3 * x["shape"] + 1).half().tolist()


def test_what_needs_a_part_of_the_network_is_refused() -> None:
    class Partial:
        def velocity(self, x, step, evaluate):
            return evaluate(x, subset=torch.tensor([0])).combined()

    with pytest.raises(OneAtATime, match="more than the whole state"):
        BatchedPolicy([Partial(), Partial()]).velocity({"shape": torch.ones(2, 1, 1)}, step(0), network)


def test_counts_are_those_of_single_objects() -> None:
    import numpy as np

    import fastsam3d
    from fastsam3d.sam3d.scene.reconstruct import reconstruct_scene

    pipeline = fastsam3d.load_pipeline("mini")
    for name in ("ss_generator", "slat_generator"):
        pipeline.models[name].inference_steps = 8
    image = np.full((48, 64, 3), 120, dtype=np.uint8)
    masks = np.zeros((2, 48, 64), dtype=bool)
    masks[0, 5:25, 5:25], masks[1, 10:40, 30:60] = True, True
    reports = []
    for batch in (1, 2):
        # A forecast that one object alone refuses would be computed for the whole batch.
        with fastsam3d.accelerate(pipeline, "balanced", step_caching={"safety_factor": 100.0}) as acceleration:
            scene = reconstruct_scene(pipeline, image, masks, batch=batch)
            assert not scene.failures
            reports.append(acceleration.report())
    single, batched = (report.stages["sparse_structure"] for report in reports)
    assert vars(single) == vars(batched)
    assert reports[0].objects == reports[1].objects == 2
