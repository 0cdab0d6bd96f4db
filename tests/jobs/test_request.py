"""Requests of Python programs."""

from __future__ import annotations

import pytest

from fastsam3d.cli.flags import parse
from fastsam3d.cli.settings import request_of
from fastsam3d.errors import UserError
from fastsam3d.jobs.request import as_plain, request_with


def test_the_defaults_are_those_of_the_command_line():
    assert as_plain(request_with()) == as_plain(request_of(parse([])))
    words = ["acceleration=fast", "seed=3", "formats=[mesh]", "model.ss_sampler.inference_steps=12", "faces=500"]
    changed = request_with(
        acceleration="fast", seed=3, formats=("mesh",), samplers={"ss_sampler": {"inference_steps": 12}}, faces=500
    )
    asked = request_of(parse(words))
    assert as_plain(changed) == as_plain(asked)
    assert "model.ss_sampler.inference_steps" in changed.given & asked.given


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seeds": 3}, "unknown key 'seeds'. Did you mean seed?"),
        ({"model": "maxi"}, "unknown model model=maxi"),
        ({"acceleration": "fst"}, "unknown preset 'fst'"),
        ({"samplers": {"ss_sampler": {"step": 3}}}, "unknown key 'ss_sampler.step'"),
        ({"samplers": {"ss_sampler": {"inference_steps": 0}}}, "a whole number from 1 to 1000"),
        ({"texture": 5}, "texture is 5: a whole number from 16"),
        ({"export": ("fbx",)}, "export fbx is not possible"),
        ({"threads": 0}, "threads is 0: a whole number from 1"),
        ({"threads": "many"}, "threads is many: a whole number from 1"),
        ({"name": "a/b"}, "name=a/b is no file name"),
        ({"image_path": ""}, "image_path is empty. Give a value, or leave it out."),
        ({"image_dir": " "}, "image_dir is empty"),
        ({"mask_path": ""}, "mask_path is empty"),
        ({"masks": ""}, "masks is empty"),
        ({"pointmap": ""}, "pointmap is empty"),
        ({"checkpoint_dir": ""}, "checkpoint_dir is empty"),
        ({"sam_checkpoint": ""}, "sam_checkpoint is empty"),
        ({"output_dir": ""}, "--output_dir is empty"),
        ({"samplers": {"ss_sampler": {"interval": [500, 0]}}}, "two numbers from 0 to 1000 are needed, the smaller"),
        ({"samplers": {"slat_sampler": {"interval": [0, 2000]}}}, "two numbers from 0 to 1000 are needed, the smaller"),
    ],
)
def test_what_cannot_be_used_is_named(values, expected):
    with pytest.raises(UserError) as caught:
        request_with(**values)
    assert expected in str(caught.value)
