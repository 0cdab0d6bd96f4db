"""The verb `batch`: its words, exit codes and messages."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from fastsam3d.basics.processes.listening import listening_socket, web_address
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
        (["port=70000"], "port=70000 is not possible: give a whole number from 1 to 65535"),
        (["engine=inline", "device=cpu", "host=192.0.2.1", "token_file=token"], "cannot serve at 192.0.2.1, port 8000"),
    ],
)
def test_mistakes_of_the_service_are_said_in_a_line(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    if "token_file=token" in words:
        (tmp_path / "token").write_text("0123456789abcdef")
    code = main(["serve", *words])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "") and said in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "service").exists()


def test_a_port_that_is_taken_and_a_folder_that_cannot_be_made_are_said_in_a_line(capsys, tmp_path):
    pytest.importorskip("fastapi", reason="fastapi is not installed here")
    (tmp_path / "file").write_text("")
    with closing(listening_socket("127.0.0.1", 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        words = ["serve", "engine=inline", "device=cpu", f"port={port}"]
        assert main([*words, f"store={tmp_path / 'a'}"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: cannot serve at 127.0.0.1, port {port} (") and said.count("\n") == 1
    assert main([*words, f"store={tmp_path / 'file' / 'b'}"]) == 2
    said = capsys.readouterr().err
    assert "/file/b cannot be made" in said and said.count("\n") == 1


def test_an_ipv6_address_stands_in_brackets():
    assert web_address("::1", 8000) == "http://[::1]:8000"
    assert web_address("127.0.0.1", 80) == "http://127.0.0.1:80"


def test_a_token_that_can_be_guessed_is_refused(capsys, tmp_path):
    (tmp_path / "token").write_text("1234")
    assert main(["serve", f"token_file={tmp_path / 'token'}"]) == 2
    assert "at least 16 letters and digits" in capsys.readouterr().err


def test_an_option_that_is_null_in_the_file_of_a_cluster_is_not_set(monkeypatch):
    from fastsam3d.cluster.service import deployed

    monkeypatch.setattr(deployed, "application_of", lambda options, request, cuda: (options, cuda))
    given = {"options": {"token_file": None, "address": None, "queue": 3}, "settings": {"device": "cpu"}}
    options, cuda = deployed.application(given)
    assert (options.token_file, options.address, options.queue, cuda) == (None, None, 3, False)
