"""The verb `batch`: its words, exit codes and messages."""

from __future__ import annotations

import json

import pytest

from fastsam3d.cli.commands.batch import split
from fastsam3d.cli.main import main

STEPS = ("model.ss_sampler.inference_steps=2", "model.slat_sampler.inference_steps=2")
QUICK = ("engine=inline", "device=cpu", "preview=false", "formats=[mesh]", "--export", "glb", *STEPS)


def run(capsys, *words):
    code = main(["batch", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_words_are_sorted_into_options_and_settings():
    words = ["--input", "photos", "output=out", "--workers=2", "--no-resume", "seed=3", "--export", "glb", "--resume"]
    assert split(words) == (
        ["input=photos", "output=out", "workers=2", "resume=false", "resume=true"],
        ["seed=3", "--export", "glb"],
    )


def test_a_batch_ends_with_0_or_with_1_where_an_item_failed(capsys, photos, tmp_path, loads):
    given = (*QUICK, f"input={photos}", "--output", tmp_path / "out")
    code, out, _ = run(capsys, *given)
    assert code == 0 and out.startswith("2 items: 2 ok\n")
    (photos / "b" / "image.png").write_bytes(b"no picture")
    code, out, _ = run(capsys, *given, "--json")
    assert code == 1
    report = json.loads(out)
    assert (report["statuses"], report["reused"]) == ({"ok": 1, "failed": 1}, 1)
    code, out, _ = run(capsys, *given)
    assert code == 1 and "  b: the picture" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["output=o", "engine=inline"], "a batch needs input="),
        (["input=i", "output=o", "engine=spark"], "engine=spark is not possible: give one of ray, inline"),
        (["input=i", "output=o", "workers=3-1"], "workers=3-1 is not possible: give auto, a number"),
        (["input=i", "output=o", "workers=0"], "workers=0 is not possible"),
        (["input=i", "output=o", "engine=inline"], "input=i is no folder and no manifest"),
        (["input=i", "output=o", "--image_path", "x"], "image_path is not for a batch"),
        (["input=i", "output=o", "resum=true"], "unknown key 'resum'"),
        (["input=i", "output=o", "--input"], "--input needs a value"),
    ],
)
def test_mistakes_are_said_in_a_line(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_help_names_every_option(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {key}=" in out for key in ("input", "output", "engine", "workers", "gpus_per_worker", "address"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["host=0.0.0.0"], "host=0.0.0.0 lets other machines in: give token_file"),
        (["token_file=missing"], "the token's file missing does not exist"),
        (["queue=0"], "queue=0 is not possible: give a whole number of at least 1"),
        (["--image_path", "x"], "image_path is not for the service"),
        (["engine=spark"], "give one of ray, inline"),
    ],
)
def test_mistakes_of_the_service_are_said_in_a_line(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code = main(["serve", *words])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "") and said in captured.err and captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_can_be_guessed_is_refused(capsys, tmp_path):
    (tmp_path / "token").write_text("1234")
    assert main(["serve", f"token_file={tmp_path / 'token'}"]) == 2
    assert "at least 16 letters and digits" in capsys.readouterr().err
