"""Files of the benchmarks: what is right is read, what is wrong is named."""

from __future__ import annotations

import json

import pytest
import torch
from chat_scene_files import SCENE, write_annotations

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks import read_annotations, read_attributes, read_predictions, read_references
from fastsam3d.mllm.benchmarks.references import read_corpus
from fastsam3d.mllm.benchmarks.unique_multiple import read_unique_lookup, unique_lookup

GOOD = {"scene_id": SCENE, "obj_id": 1, "prompt": "Which?", "ref_captions": ["<OBJ001>."]}


@pytest.fixture
def write(tmp_path):
    def write_value(value, name="file.json"):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return write_value


def test_training_questions_have_a_caption_and_no_references(write):
    (asked,) = read_annotations(write([{"scene_id": SCENE, "obj_id": 1, "prompt": "?", "caption": "Brown."}]), "scanqa")
    assert (asked.caption, asked.references, asked.object_id) == ("Brown.", (), 1)


@pytest.mark.parametrize(
    ("benchmark", "change", "words"),
    [
        ("scanrefer", {"scene_id": None}, "entry 1: scene_id is None, and has to be a text"),
        ("scanrefer", {"prompt": 3}, "entry 1: prompt is 3"),
        ("scanrefer", {"obj_id": "1"}, "entry 1: obj_id is '1', and has to be a whole number"),
        ("scanrefer", {"ref_captions": "x"}, "entry 1: ref_captions is 'x', and has to be a list of texts"),
        ("scanrefer", {"ref_captions": None}, "entry 1 has neither ref_captions nor caption"),
        ("multi3drefer", {"eval_type": "st"}, "entry 1: eval_type is 'st', and has to be one of 'zt_w_d'"),
        ("multi3drefer", {"eval_type": "mt"}, "entry 1: ref_captions .* list of whole numbers"),
        ("scan2cap", {}, "entry 1 has no pred_id"),
        ("sqa3d", {"sqa_type": 6}, "entry 1: sqa_type is 6"),
    ],
)
def test_a_wrong_field_is_named_with_its_file_and_entry(write, benchmark, change, words):
    right = GOOD | {"pred_id": 0, "sqa_type": 0}
    if benchmark == "multi3drefer":
        right |= {"eval_type": "mt", "ref_captions": [1]}
    path = write([right, GOOD | change])
    with pytest.raises(UserError, match=f"{path.name}, {words}"):
        read_annotations(path, benchmark)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ('{"a": 1}', "does not hold a list"),
        ("[1]", "entry 0: 1 is no object"),
        ("[NaN]", "NaN is no number of JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "cannot be read as JSON"),
    ],
)
def test_a_file_that_is_no_list_of_entries_is_refused(write, text, words):
    with pytest.raises(UserError, match=words):
        read_predictions(write(text), "scanqa")


def test_absent_files_and_folders(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_annotations(tmp_path / "none.json", "scanqa")
    with pytest.raises(UserError, match="annotation folder"):
        read_references(tmp_path / "none")
    assert read_references(tmp_path).corpus is None


def test_attributes(tmp_path):
    folder = write_annotations(tmp_path)
    objects = read_attributes(folder / "scannet_mask3d_val_attributes.pt")[SCENE]
    assert objects.present == (True, True, True, False)
    assert objects.boxes[2] == (0.5, 5, 0, 2, 2, 2) and objects.names[1] == "table"
    assert objects.feature_ids == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], "holds no scenes by name but a list"),
        ({3: {}}, "a scene called 3"),
        ({SCENE: {"objects": ["a"], "locs": torch.zeros(1, 7)}}, rf"{SCENE}: locs is \[1, 7\]"),
        ({SCENE: {"objects": ["a"]}}, "locs is None"),
        ({SCENE: {"objects": ["a"], "locs": torch.full((1, 6), float("nan"))}}, "not finite"),
        ({SCENE: {"objects": ["a", "b"], "locs": torch.zeros(1, 6)}}, "1 boxes, 2 names"),
        ({SCENE: {"objects": [1], "locs": torch.zeros(1, 6)}}, "a list of names"),
        ({SCENE: {"objects": ["a"], "locs": torch.zeros(1, 6), "obj_ids": ["x"]}}, "obj_ids"),
        ({SCENE: {"objects": ["a"], "locs": torch.zeros(1, 1).expand(20_000, 6)}}, "up to 10000 rows"),
    ],
)
def test_attributes_that_do_not_fit_are_named(tmp_path, value, words):
    path = tmp_path / "attributes.pt"
    torch.save(value, path)
    with pytest.raises(UserError, match=words):
        read_attributes(path)


def test_corpus_and_table_of_unique_objects(write):
    assert read_corpus(write({"scene|with|bars|3": ["a"]})) == {("scene|with|bars", 3): ("a",)}
    wrong = [([], "no captions"), ({}, "no captions"), ({"a": ["b"]}, "scene|number"), ({"a|1": []}, "not empty")]
    for value, words in wrong:
        with pytest.raises(UserError, match=words):
            read_corpus(write(value))
    assert read_unique_lookup(write({SCENE: {"0": 0, "1": 1}})) == {SCENE: {0: True, 1: False}}
    for value, words in [([], "a scene by number"), ({SCENE: {"x": 0}}, "0 or 1"), ({SCENE: {"0": 2}}, "0 or 1")]:
        with pytest.raises(UserError, match=words):
            read_unique_lookup(write(value))


def test_the_table_of_unique_objects_is_made_from_the_annotated_objects(write):
    names = {"0": "office_chair", "1": "table", "2": "chair", "3": "blackboard", "4": "refrigerator"}
    entries = [{"scene_id": SCENE, "object_id": number, "object_name": name} for number, name in names.items()]
    entries.append(entries[1])  # a second description of the same object
    labels = "id\traw_category\tcategory\tnyu40class\n"
    for raw, known in [
        ('"l shaped thing', "otherprop"),  # no quotation: the rows after it are rows
        ("office chair", "chair"),
        ("chair", "chair"),
        ("table", "table"),
        ("refrigerator", "refridgerator"),
    ]:
        labels += f"1\t{raw}\ta category\t{known}\n"
    made = unique_lookup(write(entries, "ScanRefer_filtered.json"), write(labels, "labels.tsv"))
    # The blackboard has no class, and the spelling of the other is not that of the list: both are "others".
    assert made == {SCENE: {0: False, 1: True, 2: False, 3: False, 4: False}}
    with pytest.raises(UserError, match="no columns"):
        unique_lookup(write(entries), write("a\tb\n1\t2\n", "labels.tsv"))
