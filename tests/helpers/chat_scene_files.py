"""A small annotation folder in the layout of Chat-Scene: boxes, questions, corpus, and the table of unique objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SCENE, OTHER = "scene0001_00", "scene0002_00"
SEGMENTED = [[0, 0, 0, 2, 2, 2], [5, 0, 0, 2, 2, 2], [0.5, 5, 0, 2, 2, 2], [0, 0, 0, 0, 0, 0]]
"""Three objects and one row that fills up. Number 2 overlaps the true object 2 by 0.6, the others are exact."""
TRUE = [[0, 0, 0, 2, 2, 2], [5, 0, 0, 2, 2, 2], [0, 5, 0, 2, 2, 2]]
NAMES = ["chair", "table", "chair"]
QUESTIONS: dict[str, list[dict[str, Any]]] = {
    "scanrefer_mask3d_val.json": [
        {"obj_id": 0, "ref_captions": ["<OBJ000>."], "prompt": 'Which object is "a chair"?'},
        {"obj_id": 1, "ref_captions": ["<OBJ001>."], "prompt": 'Which object is "a table"?'},
        {"obj_id": 2, "ref_captions": ["<OBJ002>."], "prompt": 'Which object is "another chair"?'},
    ],
    "multi3dref_mask3d_val.json": [
        {"obj_id": 0, "ref_captions": [0, 2], "eval_type": "mt", "prompt": "Are there chairs?"},
        {"obj_id": 0, "ref_captions": [], "eval_type": "zt_wo_d", "prompt": "Is there a sink?"},
        {"obj_id": 0, "ref_captions": [1], "eval_type": "st_wo_d", "prompt": "Is there a table?"},
    ],
    "scan2cap_mask3d_val.json": [
        {"obj_id": 0, "pred_id": 0, "iou": 1.0, "ref_captions": ["a chair."], "prompt": "Describe <OBJ000>."},
        {"obj_id": 2, "pred_id": 2, "iou": 0.6, "ref_captions": ["a chair."], "prompt": "Describe <OBJ002>."},
    ],
    "scanqa_val.json": [
        {"obj_id": 1, "qid": "val-scene0001-0", "ref_captions": ["brown", "dark brown"], "prompt": "What color?"},
        {"obj_id": 1, "qid": "val-scene0001-1", "ref_captions": ["2"], "prompt": "How many chairs are there?"},
    ],
    "sqa3d_val.json": [
        {"obj_id": 0, "ref_captions": ["2"], "sqa_type": 2, "prompt": "I face the table. How many chairs?"},
        {"obj_id": 0, "ref_captions": ["left"], "sqa_type": 0, "prompt": "I face the table. What side is it?"},
    ],
}
CORPUS = {f"{SCENE}|0": ["sos a brown chair eos"], f"{SCENE}|1": ["a table"], f"{SCENE}|2": ["sos a brown chair eos"]}
UNIQUE = {SCENE: {"0": 1, "1": 0, "2": 1}}


def write_annotations(folder: Path) -> Path:
    """Writes the folder; every question is about the first scene, the second has boxes alone."""
    folder.mkdir(parents=True, exist_ok=True)
    segmented = {"objects": [*NAMES, "nothing"], "locs": torch.tensor(SEGMENTED, dtype=torch.float32)}
    true = {"objects": NAMES, "locs": torch.tensor(TRUE, dtype=torch.float32)}
    torch.save({SCENE: segmented, OTHER: segmented}, folder / "scannet_mask3d_val_attributes.pt")
    torch.save({SCENE: true, OTHER: true}, folder / "scannet_val_attributes.pt")
    files: dict[str, Any] = {
        name: [{"scene_id": SCENE, **question} for question in questions] for name, questions in QUESTIONS.items()
    }
    files["scan2cap_val_corpus.json"] = CORPUS
    files["scanrefer_unique_multiple_lookup.json"] = UNIQUE
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return folder
