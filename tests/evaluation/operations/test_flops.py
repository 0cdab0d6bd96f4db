"""Counted operations against docs/facts.md, section S11, against formulas, and by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from network_counting import NetworkCounter, ShallowCounter

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.cli.main import main
from fastsam3d.diffusion.maths import full_steps
from fastsam3d.diffusion.operations import sampling_flops
from fastsam3d.diffusion.passes import Passes
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STRUCTURED_LATENT
from fastsam3d.evaluation.operations.plan import Planner
from fastsam3d.evaluation.operations.run import plain_passes, planned_flops
from fastsam3d.evaluation.operations.table import render
from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.flops import ModelFlops, VoxelCounts

TERA = 1e12
SHEET = 0.01
"""Relative difference to the figures of docs/facts.md, section S11, which are rounded to two or three digits."""

EXACT = load_preset("exact")["exact"].switched_on


@pytest.fixture(scope="module")
def official():
    return model_config("sam3d")


def test_figures_of_the_published_sizes(official):
    costs = ModelFlops(official)
    assert costs.sparse_structure().total / TERA == pytest.approx(9.09, rel=SHEET)
    for voxels, expected in ((5_000, 2.35), (10_000, 4.46), (20_000, 9.59), (26_300, 13.5)):
        assert costs.structured_latent(VoxelCounts.shell(voxels)).total / TERA == pytest.approx(expected, rel=SHEET)
    assert sum(costs.embedding(SPARSE_STRUCTURE).values()) / TERA == pytest.approx(4.76, rel=SHEET)
    assert sum(costs.embedding(STRUCTURED_LATENT).values()) / TERA == pytest.approx(4.16, rel=SHEET)
    assert costs.structure_decoder() / TERA == pytest.approx(0.813, rel=SHEET)
    for voxels, mesh, gaussian in ((5_000, 1.6, 0.87), (10_000, 3.2, 1.74), (20_000, 6.3, 3.48)):
        assert costs.mesh_decoder(VoxelCounts.shell(voxels)) / TERA == pytest.approx(mesh, rel=0.03)
        assert costs.gaussian_decoder(VoxelCounts.shell(voxels)) / TERA == pytest.approx(gaussian, rel=SHEET)


def test_default_runs(official):
    plain = planned_flops(official, 10_000).stages
    assert plain["sparse_structure"] == pytest.approx(400, rel=SHEET)
    assert plain["structured_latent"] == pytest.approx(169, rel=SHEET)
    assert planned_flops(official, 10_000, formats=()).total == pytest.approx(4.76 + 400 + 0.81 + 4.16 + 169, rel=SHEET)


def test_counted_networks_agree_with_the_formulas():
    config = model_config("mini")
    costs, counts = ModelFlops(config), VoxelCounts.shell(800)
    counter = NetworkCounter(config)
    for stage in (SPARSE_STRUCTURE, STRUCTURED_LATENT):
        assert counter.embedding(stage) == pytest.approx(sum(costs.embedding(stage).values()), rel=1e-6)
    assert counter.structure_decoder() == pytest.approx(costs.structure_decoder(), rel=1e-6)
    assert counter.decoder("slat_decoder_mesh", counts) == pytest.approx(costs.mesh_decoder(counts), rel=0.01)
    assert counter.decoder("slat_decoder_gs", counts) == pytest.approx(costs.gaussian_decoder(counts), rel=0.01)
    without = ModelFlops(dataclasses.replace(config, slat_decoder_gs=None))
    assert without.gaussian_decoder(counts) == 0


@pytest.mark.parametrize(
    "exact",
    [
        frozenset(),
        EXACT,
        EXACT - {"zero_condition"},
    ],
)
@pytest.mark.parametrize("stage", [SPARSE_STRUCTURE, STRUCTURED_LATENT])
def test_counted_runs_agree_with_the_formulas(stage, exact):
    config, counts = model_config("mini"), VoxelCounts.shell(800)
    first = stage == SPARSE_STRUCTURE
    parts = ModelFlops(config).sparse_structure() if first else ModelFlops(config).structured_latent(counts)
    # The counter takes a table's step for a shared layer, and does not see that a table embeds the time anew.
    parts = dataclasses.replace(parts, table_step=parts.modulation)
    counted = NetworkCounter(config, exact).sampling(stage, None if first else counts)
    passes = plain_passes(config, stage)
    assert counted.run(passes) == pytest.approx(sampling_flops(parts, passes, exact), rel=2e-3)
    if not first:
        partial = Passes.full(9, 5, tokens=0.5)
        # Rounding to whole tokens, and the shared layers of a carved pass.
        assert counted.run(partial) == pytest.approx(sampling_flops(parts, partial, exact), rel=0.02)


@pytest.mark.slow
def test_depth_follows_from_two_shallow_networks():
    config, exact, counts = model_config("mini"), EXACT, VoxelCounts.shell(800)
    deep, shallow = NetworkCounter(config, exact), ShallowCounter(config, exact)
    for stage, sizes in ((SPARSE_STRUCTURE, None), (STRUCTURED_LATENT, counts)):
        passes = plain_passes(config, stage)
        assert shallow.sampling(stage, sizes).run(passes) == pytest.approx(deep.sampling(stage, sizes).run(passes))
        assert shallow.embedding(stage) == pytest.approx(deep.embedding(stage))
    assert shallow.decoder("slat_decoder_mesh", counts) == deep.decoder("slat_decoder_mesh", counts)


@pytest.mark.slow
def test_plans_are_those_of_the_policies():
    config = model_config("mini")
    generator = {SPARSE_STRUCTURE: config.ss_sampler, STRUCTURED_LATENT: config.slat_sampler}
    planner = Planner(config)
    off = planner.plan(load_preset("off"), 10_000)
    assert {stage: off.passes[stage] for stage in generator} == {s: plain_passes(config, s) for s in generator}
    caching = load_preset("off", {"step_caching": {"enabled": True, "stride": 3, "warmup": 2, "safety_factor": 100.0}})
    guided = [j < 19 for j in range(25)]
    plan = full_steps(guided, 3, 2, caching["step_caching"].edge_steps)
    passes = planner.plan(caching, 10_000).passes[SPARSE_STRUCTURE]
    assert passes.conditional == len(plan)
    assert passes.unconditional == sum(guided[j] for j in plan)
    merging = load_preset("off", {"token_aggregation": {"enabled": True, "minimum_voxels": 5_000}})
    assert planner.plan(merging, 10_000).voxels_kept < 0.8
    assert planner.plan(merging, 4_000).voxels_kept == 1.0


@pytest.mark.slow
def test_command(capsys):
    assert main(["flops", "model=mini", "voxels=800", "acceleration=exact", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    row = table["rows"][0]
    assert row["acceleration"] == "exact"
    assert row["total_tflop"] == pytest.approx(sum(row["tflop"].values()))
    assert row["total_tflop"] < table["meta"]["untouched_tflop"]
    text = render(table)
    assert "one plain evaluation" in text
    assert f"{1 - row['total_tflop'] / table['meta']['untouched_tflop']:.0%}" in text


@pytest.mark.parametrize("wrong", ["model=none", "acceleration=exakt", "voxels=-3", "speed=9"])
def test_command_says_what_is_wrong(capsys, wrong):
    assert main(["flops", wrong]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_official_size_on_the_meta_device(official):
    exact = NetworkCounter(official, EXACT)
    plain = NetworkCounter(official)
    counts = VoxelCounts.shell(10_000)
    for stage, limits in ((SPARSE_STRUCTURE, (400, 280)), (STRUCTURED_LATENT, (169, 140))):
        sizes = None if stage == SPARSE_STRUCTURE else counts
        passes = plain_passes(official, stage)
        assert plain.sampling(stage, sizes).run(passes) / TERA == pytest.approx(limits[0], rel=SHEET)
        assert exact.sampling(stage, sizes).run(passes) / TERA <= limits[1]


def test_neighbours_of_a_full_cube_by_hand():
    axis = torch.arange(4, dtype=torch.int32)
    coords = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    counts = VoxelCounts.of(torch.cat([coords.new_zeros(64, 1), coords], 1))
    # Per axis a cube of side n has (3n - 2) / n occupied taps: 4 of 2 cells, 10 of 4 voxels, 22 of 8 children.
    expected = ((4 / 2) ** 3, (10 / 4) ** 3, (22 / 8) ** 3, (46 / 16) ** 3)
    assert counts.neighbours == pytest.approx(expected)
    assert (counts.voxels, counts.cells) == (64, 8)
    assert counts.window == 64  # one window, with and without the shift by half a window
