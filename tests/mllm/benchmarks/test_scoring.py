"""Scores of answers over a small annotation folder, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chat_scene_files import write_annotations

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks import (
    BENCHMARKS,
    Prediction,
    References,
    read_annotations,
    read_predictions,
    read_references,
    score,
    write_predictions,
)
from fastsam3d.mllm.benchmarks.annotations import NAMES
from fastsam3d.mllm.benchmarks.scoring import check_scorable


@pytest.fixture
def folder(tmp_path):
    return write_annotations(tmp_path / "annotations")


def predictions(folder, benchmark, *texts):
    annotations = read_annotations(folder / BENCHMARKS[benchmark].file.format(split="val"), benchmark)
    return [Prediction(annotation, text) for annotation, text in zip(annotations, texts, strict=True)]


def test_the_table_names_every_benchmark():
    assert tuple(BENCHMARKS) == NAMES


def test_scanrefer(folder):
    # The first is right because no object stands for object 0; the second names an object that is not there first; the
    # third overlaps by 0.6.
    answers = predictions(folder, "scanrefer", "I do not know.", "<OBJ090> <OBJ001>.", "<OBJ002>.")
    scores = score("scanrefer", answers, read_references(folder))
    assert scores["acc@0.25"] == scores["acc@0.5"] == scores["unique_acc@0.5"] == scores["multiple_acc@0.5"] == 1
    answers = [replace(answers[0], text="<OBJ001>"), answers[1], replace(answers[2], text="<OBJ003>")]
    scores = score("scanrefer", answers, read_references(folder))
    assert scores["acc@0.5"] == pytest.approx(1 / 3)
    assert (scores["unique_acc@0.5"], scores["multiple_acc@0.5"], scores["samples"]) == (1, 0, 3)


def test_a_class_of_questions_that_is_absent_has_no_score(folder):
    answers = predictions(folder, "scanrefer", "", "", "")[:1]
    assert score("scanrefer", answers, read_references(folder))["unique_acc@0.5"] is None
    without = replace(read_references(folder), unique=None)
    assert score("scanrefer", answers, without)["multiple_acc@0.5"] is None


def test_multi3drefer(folder):
    answers = predictions(folder, "multi3drefer", "Yes. <OBJ000> and <OBJ001>.", "No.", "No.")
    scores = score("multi3drefer", answers, read_references(folder))
    # One of two and two: 2*1/4; no object where there is none: 1; none where there is one: 0.
    assert scores["mt_f1@0.5"] == 0.5 and scores["zt_wo_d_f1@0.5"] == 1 and scores["st_wo_d_f1@0.25"] == 0
    assert scores["f1@0.5"] == pytest.approx(1.5 / 3)
    wrong = replace(answers[1], text="Yes. <OBJ001>.")
    assert score("multi3drefer", [wrong], read_references(folder))["f1@0.25"] == 0
    absent = replace(answers[1], text="Yes. <OBJ077>.")  # no such object: as good as none
    assert score("multi3drefer", [absent], read_references(folder))["f1@0.25"] == 1


def test_scan2cap(folder):
    answers = predictions(folder, "scan2cap", "a brown chair", "a brown chair")
    scores = score("scan2cap", answers, read_references(folder), with_meteor=False)
    # Two of three captions are exact, in the corpus wrapped or not; that of object 1 is absent: (1 + 1 + R) / 3 with
    # two of four words, precision 1 and recall 1/2.
    missed = 2.44 * 0.5 / (0.5 + 1.44)
    assert scores["rouge_l@0.25"] == pytest.approx((2 + missed) / 3)
    assert scores["rouge_l@0.5"] == scores["rouge_l@0.25"]  # 0.6 is enough for both
    assert scores["meteor@0.5"] is None and scores["outside_corpus"] == 0
    elsewhere = [replace(answers[0], annotation=replace(answers[0].annotation, predicted_id=1)), answers[1]]
    both_missed = 2.44 * 0.4 / (0.4 + 1.44)
    scores = score("scan2cap", elsewhere, read_references(folder), with_meteor=False)
    assert scores["rouge_l@0.25"] == pytest.approx((1 + missed + both_missed) / 3)


def test_scanqa_keeps_references_as_they_are(folder):
    scores = score("scanqa", predictions(folder, "scanqa", "Brown.", "Two."), with_meteor=False)
    assert (scores["em"], scores["em_refined"]) == (0.5, 0.5)  # "two" is not "2"
    assert scores["bleu1"] == pytest.approx(0.5)


def test_sqa3d_cleans_both_sides(folder):
    scores = score("sqa3d", predictions(folder, "sqa3d", "Two.", "On the left."))
    assert (scores["em"], scores["em_refined"]) == (0.5, 1)
    assert (scores["how_em"], scores["what_em"], scores["what_em_refined"], scores["can_em"]) == (1, 0, 1, None)


def test_predictions_are_read_as_they_were_written(folder, tmp_path):
    for name in NAMES:
        count = len(read_annotations(folder / BENCHMARKS[name].file.format(split="val"), name))
        answers = predictions(folder, name, *["<OBJ001>."] * count)
        path = write_predictions(tmp_path / f"{name}.json", answers)
        assert read_predictions(path, name) == answers


def test_scenes_without_boxes_are_an_error_or_counted(folder):
    answers = predictions(folder, "scanrefer", "", "", "")
    answers[1] = replace(answers[1], annotation=replace(answers[1].annotation, scene="scene0099_00"))
    with pytest.raises(UserError, match=r"1 of 3 answers are about scenes without boxes, such as scene0099_00"):
        score("scanrefer", answers, read_references(folder))
    with pytest.warns(UserWarning, match="left out"):
        scores = score("scanrefer", answers, read_references(folder), skip_missing_scenes=True)
    assert (scores["samples"], scores["skipped"]) == (2, 1)


def test_what_does_not_belong_together_is_refused(folder):
    answers = predictions(folder, "scanrefer", "", "", "")
    for wrong, words in [
        (lambda: score("scanrefr", answers), "Did you mean scanrefer"),
        (lambda: score("scanrefer", answers), "needs the attribute file of the segmented objects"),
        (lambda: score("scanqa", []), "no answers of ScanQA"),
        (lambda: score("scanqa", [replace(answers[0], annotation=replace(answers[0].annotation, references=()))]),
         "answer 0 is about a question without references"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=words):
            wrong()
    far = replace(answers[0], annotation=replace(answers[0].annotation, object_id=3))
    with pytest.raises(UserError, match="3 true objects, and a question is about number 3"):
        score("scanrefer", [far], read_references(folder))
    stranger = replace(read_references(folder), unique={})
    with pytest.raises(UserError, match="not in the table of unique objects"):
        score("scanrefer", answers, stranger)
    assert References().has_scene("scene0001_00") is False


@pytest.mark.parametrize("benchmark", NAMES)
def test_what_cannot_be_scored_is_known_before_questions_are_answered(folder, benchmark):
    asked = read_annotations(folder / BENCHMARKS[benchmark].file.format(split="val"), benchmark)
    references = read_references(folder)
    check_scorable(benchmark, asked, references)
    with pytest.raises(UserError, match="no questions of"):
        check_scorable(benchmark, [], references)
    if "true" not in BENCHMARKS[benchmark].needs:
        return
    nowhere = replace(references, true={})
    with pytest.raises(UserError, match="no questions of"):
        check_scorable(benchmark, asked, nowhere, skip_missing_scenes=True)
    none = {scene: replace(of_one, boxes=(), names=(), feature_ids=()) for scene, of_one in references.true.items()}
    with pytest.raises(UserError, match="has 0 true objects, and a question is about number"):
        check_scorable(benchmark, asked, replace(references, true=none))
    if benchmark == "scanrefer":
        with pytest.raises(UserError, match="not in the table of unique objects"):
            check_scorable(benchmark, asked, replace(references, unique={}))
