"""From files of features and questions to scores."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from chat_scene_files import OTHER, SCENE

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks import BENCHMARKS, read_annotations, read_references, score
from fastsam3d.mllm.chat_scene import answer_questions, read_features

SHORT = {"num_beams": 1, "max_new_tokens": 3}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_is_answered_and_scored(benchmark, files, model, features, segmented):
    path = files.annotations / BENCHMARKS[benchmark].file.format(split="val")
    annotations = read_annotations(path, benchmark)
    predictions = answer_questions(model, annotations, features, segmented, batch=2, **SHORT)
    assert [prediction.annotation for prediction in predictions] == annotations
    scores = score(benchmark, predictions, read_references(files.annotations), with_meteor=False)
    assert scores["samples"] == len(annotations) and 0 <= scores[BENCHMARKS[benchmark].main] <= 10


def test_a_random_order_does_not_depend_on_the_batch(files, model, features):
    annotations = read_annotations(files.annotations / "scanqa_val.json", "scanqa")
    whole = answer_questions(model, annotations, features, batch=2, seed=3, **SHORT)
    assert answer_questions(model, annotations, features, batch=1, seed=3, **SHORT) == whole


def test_scenes_without_features_are_an_error_or_left_out(files, model, features):
    annotations = read_annotations(files.annotations / "scanqa_val.json", "scanqa")
    annotations[0] = replace(annotations[0], scene="scene0009_00")
    with pytest.raises(UserError, match="1 of 2 questions are about scenes without features, such as scene0009_00"):
        answer_questions(model, annotations, features, **SHORT)
    with pytest.warns(UserWarning, match="left out"):
        predictions = answer_questions(model, annotations, features, skip_missing_scenes=True, **SHORT)
    assert [prediction.annotation for prediction in predictions] == annotations[1:]
    with pytest.raises(UserError, match="scenes without an entry of the attribute file, such as scene0001_00"):
        answer_questions(model, annotations[1:], features, {}, **SHORT)


def test_scenes_hold_what_the_files_say(features, segmented):
    assert features.names == (SCENE, OTHER) and SCENE in features and "scene0009_00" not in features
    scene = features.scene(SCENE, segmented[SCENE])
    assert len(scene) == 4 and scene.present.tolist() == [True, True, True, False]
    assert not scene.features_3d[3].any() and scene.features_2d[:3].all()
    renumbered = replace(segmented[SCENE], feature_ids=(2, 1, 0, 9))
    assert torch.equal(features.scene(SCENE, renumbered).features_3d[:3], scene.features_3d[:3].flip(0))
    with pytest.raises(UserError, match="no scene0009_00"):
        features.scene("scene0009_00")


def test_an_object_with_features_and_without_a_box_is_not_there(features, segmented):
    boxes = ((0.0,) * 6, *segmented[SCENE].boxes[1:])
    scene = features.scene(SCENE, replace(segmented[SCENE], boxes=boxes))
    assert scene.present.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], "holds no vectors"),
        ({}, "holds no vectors"),
        ({"scene": torch.ones(3)}, "the key 'scene'"),
        ({"scene0000_00_xx": torch.ones(3)}, "the key 'scene0000_00_xx'"),
        ({3: torch.ones(3)}, "the key 3"),
        ({"scene0000_00_9999": torch.ones(3)}, "a number below 1000"),
        ({"scene0000_00_00": torch.ones(3, 1)}, r"scene0000_00_00: it is a tensor of the shape \[3, 1\]"),
        ({"scene0000_00_00": torch.ones(3).long()}, "a vector of up to"),
        ({"scene0000_00_00": torch.zeros(1).expand(10**9)}, "a vector of up to"),
        ({"scene0000_00_00": torch.ones(3), "scene0000_00_01": torch.ones(4)}, "3 numbers, as before"),
    ],
)
def test_feature_files_that_do_not_fit_are_named(value, words, tmp_path, files):
    path = tmp_path / "features.pt"
    torch.save(value, path)
    with pytest.raises(UserError, match=words):
        read_features(files.features_3d, path)
