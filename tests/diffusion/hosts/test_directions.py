"""Both hosts show techniques one direction of time and one sign of velocity."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fastsam3d.acceleration.family import find_host
from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.hosts.sam3d_objects.sampler import Sampler
from fastsam3d.diffusion.sites import EvaluationState


class WatchingSession:
    """Computes every step, and remembers what it was shown."""

    def __init__(self):
        self.state, self.seen, self.trajectory, self.shortcut = EvaluationState(), [], None, False

    def steps(self, configured, times, edges):
        assert times(configured)[0] == pytest.approx(0.0)
        assert times(configured)[-1] == pytest.approx(1.0)
        assert sorted(edges) == pytest.approx([0.0, 0.5])
        return configured

    def grid(self, configured, rescale, times, edges):
        return self.steps(configured, times, edges), rescale

    def start(self, trajectory):
        self.trajectory, self.state.running = trajectory, True

    def velocity(self, x, time, evaluate):
        guided = evaluate(x)
        velocity = guided.combined()
        self.seen.append((time, {k: v.clone() for k, v in x.items()}, velocity, guided))
        return velocity

    def finish(self):
        self.state.reset()


@pytest.mark.parametrize("stage", ["sparse_structure", "structured_latent"])
@pytest.mark.parametrize("kind", ["sam3d", "trellis"])
def test_a_step_moves_by_the_velocity(request, kind, stage, picture, cut_out):
    pipeline = request.getfixturevalue(kind)
    session, patches = WatchingSession(), Patches()
    find_host(pipeline).attach_sampler(patches, stage, session)
    pipeline.run(*picture, seed=1) if kind == "sam3d" else pipeline.run(cut_out)
    patches.restore()
    assert [time for time, *_ in session.seen] == pytest.approx(session.trajectory.times[:-1], abs=1e-6)
    for (time, x, velocity, guided), (later, moved, _, _) in zip(session.seen[:-1], session.seen[1:], strict=True):
        assert later > time
        for name, value in x.items():
            assert torch.allclose(moved[name], value + (later - time) * velocity[name], atol=1e-5), (kind, name)
        assert (guided.delta is not None) == session.trajectory.guided[session.trajectory.times.index(time)]
        if guided.delta is not None:
            for name, value in guided.conditional.items():
                assert torch.allclose(value + guided.delta[name], velocity[name], atol=1e-4)


@pytest.mark.parametrize(("strength", "edges"), [(7.0, (0.0, 0.5)), (0, ()), ({"shape": 0.0, "scale": 2}, (0.0, 0.5))])
def test_guidance_without_strength_has_no_edges(strength, edges):
    guidance = SimpleNamespace(strength=strength, interval=[0, 500])
    assert Sampler(SimpleNamespace(reverse_fn=guidance, time_scale=1000.0)).edges() == edges
