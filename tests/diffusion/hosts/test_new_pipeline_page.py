"""Follows docs/new_pipeline.md to the letter: a pipeline and its host, both outside the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import fastsam3d
from fastsam3d.diffusion.hosts import hosts, remove_host
from fastsam3d.errors import UserError

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "new_pipeline.md"
CONDITION = torch.linspace(-1, 1, 8).reshape(1, 1, 8)


@pytest.fixture
def page():
    """Names that the page's pipeline and host define, and the code that uses them."""
    codes = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(codes) == 3
    names = {"__name__": "somebodys_module"}
    torch.manual_seed(0)
    for code in codes[:2]:
        exec(code, names)
    yield names, codes[2]
    remove_host(names["PointHost"])
    assert names["PointHost"] not in hosts()


@pytest.fixture
def points(page):
    torch.manual_seed(0)
    return page[0]["PointPipeline"]()


def attributes(points):
    parts = {"": points} | dict(points.network.named_modules())
    return {name: {key: id(value) for key, value in vars(part).items()} for name, part in parts.items()}


def test_its_last_lines_run_and_print_a_report(page, capsys):
    names, code = page
    exec(code, names)
    assert re.search(r"points +- +(\d+) +(\d+)", capsys.readouterr().out)
    counts = names["acceleration"].report().stages["points"]
    assert counts.evaluations + counts.forecast == 48
    assert 0 < counts.forecast < 48


def test_off_is_bit_identical_and_counts_every_pass(page, points):
    plain, before = points.run(CONDITION), attributes(points)
    with fastsam3d.accelerate(points, "off") as acceleration:
        assert torch.equal(points.run(CONDITION), plain)
        report = acceleration.report()
    assert list(report.stages) == ["points"]
    assert (report.stages["points"].conditional_computed, report.stages["points"].unconditional_computed) == (24, 24)
    assert report.objects == 1
    assert attributes(points) == before


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("exact", {}),
        ("fewer_steps", {}),
        ("guidance_reuse", {}),
        ("hicache", {}),
        ("first_block_cache", {"first_block_cache.latent_threshold": 1.0}),
        ("balanced", {}),
    ],
)
def test_presets_run_and_leave_no_trace(page, points, preset, options):
    plain, before = points.run(CONDITION), attributes(points)
    with fastsam3d.accelerate(points, preset, **options) as acceleration:
        result = points.run(CONDITION)
        counts = acceleration.report().stages["points"]
    assert attributes(points) == before
    assert torch.equal(points.run(CONDITION), plain)
    if preset == "exact":
        assert torch.allclose(result, plain, atol=1e-5)
    else:
        assert counts.evaluations < 48
        assert torch.isfinite(result).all()


def test_what_it_does_not_offer_is_refused(page, points):
    with pytest.raises(UserError, match=r"token_carving needs .* does not offer: set token_carving.enabled=false"):
        fastsam3d.accelerate(points, "off", token_carving=True)


def test_an_exception_in_mid_run_leaves_nothing_behind(page, points):
    plain = points.run(CONDITION)
    with fastsam3d.accelerate(points, "taylorseer"):
        expected = points.run(CONDITION)
        handle = points.network.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            points.run(CONDITION)
        handle.remove()
        assert torch.equal(points.run(CONDITION), expected)
    assert torch.equal(points.run(CONDITION), plain)
