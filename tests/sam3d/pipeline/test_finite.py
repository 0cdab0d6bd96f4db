"""Networks that give NaN are named, whichever it is; another default type is refused."""

from __future__ import annotations

import pytest
import torch
from small_pipeline import picture, small_pipeline

import fastsam3d
from fastsam3d.errors import UserError
from fastsam3d.sam3d.memory.residency import RUN_ORDER
from fastsam3d.sam3d.pipeline.finite import IN_WORDS, require_finite


@pytest.mark.parametrize("preset", ["", "balanced"])
@pytest.mark.parametrize("network", RUN_ORDER)
def test_the_network_that_gives_nan_is_named(network: str, preset: str) -> None:
    pipeline = small_pipeline()
    if preset:
        fastsam3d.accelerate(pipeline, preset)
    module = {**dict(pipeline.models.items()), **pipeline.condition_embedders}[network]
    for parameter in module.parameters():
        parameter.fill_(torch.nan)
    with pytest.raises(UserError, match=rf"The network {network}, which .*, gave values that are not finite"):
        pipeline.run(*picture(), formats=("mesh", "gaussian"))


def test_one_damaged_weight_of_a_batch_is_named() -> None:
    pipeline = small_pipeline()
    pipeline.condition_embedders["ss_condition_embedder"].idx_emb[0, 0] = torch.inf
    image, mask = picture()
    with pytest.raises(UserError, match="ss_condition_embedder"):
        pipeline.sample_structures(image, [mask, mask])


def test_every_network_has_words() -> None:
    assert set(IN_WORDS) == set(RUN_ORDER)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_single_value_is_enough(value: float) -> None:
    good, bad, empty = torch.ones(3, 4), torch.ones(2, 5).half(), torch.ones(0, 7)
    require_finite("ss_decoder", good, bad, empty)
    require_finite("ss_decoder", empty)
    bad[1, 2] = value
    with pytest.raises(UserError, match="ss_decoder, which decodes the sparse structure"):
        require_finite("ss_decoder", good, bad, empty)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_another_default_type_is_refused(kind: torch.dtype) -> None:
    pipeline = small_pipeline()
    image, mask = picture()
    torch.set_default_dtype(kind)
    try:
        calls = (
            lambda: pipeline.run(image, mask),
            lambda: pipeline.sample_structures(image, [mask]),
            lambda: fastsam3d.load_pipeline("mini"),
        )
        for call in calls:
            with pytest.raises(UserError, match=r"default type is (float64|bfloat16).*set_default_dtype"):
                call()
    finally:
        torch.set_default_dtype(torch.float32)
