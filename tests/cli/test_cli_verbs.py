"""Verbs, help and the listing of presets."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fastsam3d import __version__
from fastsam3d.basics.config_files import preset_names
from fastsam3d.cli.flags import PARAMETERS
from fastsam3d.cli.main import VERBS, guarded, main


def test_help_names_every_verb(capsys):
    assert main([]) == 0
    assert main(["--help"]) == 0
    stdout = capsys.readouterr().out
    assert all(f"  {verb} " in stdout for verb in VERBS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastsam3d {__version__}\n"


@pytest.mark.parametrize("verb", ["infer", "scene"])
def test_help_of_a_run_says_what_the_carving_ratio_is(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as leaving:
        main([verb, "--help"])
    assert leaving.value.code == 0
    stdout = capsys.readouterr().out
    assert "carved (skipped, not kept)" in stdout
    assert all(f"--{flag}" in stdout for flag in PARAMETERS)


OF_THEIR_OWN = {"infer", "scene", "view", "turntable", "finish", "demo", "examples"}
"""Verbs whose help other tests read."""


@pytest.mark.parametrize("verb", sorted({*VERBS} - OF_THEIR_OWN))
def test_help_of_the_other_verbs(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert f"python -m fastsam3d {verb}" in capsys.readouterr().out


def test_help_needs_no_pytorch():
    """Importing it takes seconds, which is long for a page of text."""
    script = (
        "import contextlib, io, sys\n"
        "from fastsam3d.cli.main import VERBS, main\n"
        "for verb in VERBS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main([verb, '--help'])\n"
        "    assert 'torch' not in sys.modules, verb\n"
        "from fastsam3d.cli.commands.train import PROGRAMS\n"
        "for program in PROGRAMS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main(['train', program, '--help'])\n"
        "    assert 'torch' not in sys.modules, program\n"
        "from fastsam3d.cli.commands.mllm.dispatch import SUB_VERBS\n"
        "for name in SUB_VERBS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main(['mllm', name, '--help'])\n"
        "    assert 'torch' not in sys.modules, name\n"
        "from fastsam3d.cli.commands.mllm.train import PROGRAMS\n"
        "for program in PROGRAMS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main(['mllm', 'train', program, '--help'])\n"
        "    assert 'torch' not in sys.modules, program\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_presets_are_listed_by_kind_with_their_descriptions(capsys):
    assert main(["presets"]) == 0
    blocks = [block.splitlines() for block in capsys.readouterr().out.split("\n\n")]
    names = [[line.split()[0] for line in lines[1:]] for lines in blocks[:3]]
    assert names[0] == ["off", "exact", "accurate", "balanced", "balanced_12", "paper", "fast"]
    assert {"taylorseer", "easycache", "hicache"} <= set(names[1])
    assert "fewer_steps" in names[2]
    assert sorted(name for group in names for name in group) == sorted(preset_names())
    assert "bit-identical" in blocks[0][1]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_printed_as_yaml(name, capsys):
    assert main(["presets", name]) == 0
    assert OmegaConf.create(capsys.readouterr().out)["name"] == name


def test_every_key_is_explained(capsys):
    assert main(["presets", "--keys"]) == 0
    stdout = capsys.readouterr().out
    assert "acceleration.step_caching\n" in stdout
    assert ".carved_fraction  (--slat_carving_ratio)" in stdout
    assert "Allowed: 1 to 50." in stdout


def test_interruption_ends_in_a_line(capsys):
    def interrupted(_words):
        raise KeyboardInterrupt

    assert guarded(interrupted, []) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_defects_are_a_line_and_a_traceback_when_asked_for(capsys):
    def broken(_words):
        raise RuntimeError("a defect\nsecond line")

    assert guarded(broken, []) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: something went wrong inside (RuntimeError: a defect in test_cli_verbs.py, line ")
    assert "--traceback" in line
    assert guarded(broken, ["--traceback"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_flag_for_tracebacks_reaches_no_command():
    seen = []
    assert guarded(lambda words: seen.append(words) or 0, ["a", "--traceback", "b"]) == 0
    assert seen == [["a", "b"]]


@pytest.mark.parametrize("shell", ["{} presets >&-", "{} presets | head -n 1", "{} presets >/dev/null 2>&-"])
def test_closed_streams_are_no_error(shell):
    command = shell.format(f"'{sys.executable}' -m fastsam3d")
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in finished.stderr and "Exception ignored" not in finished.stderr
    assert finished.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_a_line():
    command = f"'{sys.executable}' -m fastsam3d presets >/dev/full"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert finished.returncode == 2 and len(finished.stderr.splitlines()) == 1


def test_device_without_memory_is_said_plainly(capsys):
    class OutOfMemoryError(RuntimeError):
        pass

    def starved(_words):
        raise OutOfMemoryError("CUDA out of memory")

    assert guarded(starved, []) == 2
    assert "precision=bfloat16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "expected"),
    [("train", "interrupted; what is there is kept, and the same command goes on\n"), ("flops", "interrupted\n")],
)
def test_an_interruption_says_what_is_left(monkeypatch, capsys, verb, expected) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module(f"fastsam3d.cli.commands.{VERBS[verb].module}"), "main", interrupted)
    assert main([verb]) == 130 and capsys.readouterr().err == expected


def test_help_of_finish(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["finish", "--help"])
    assert leaving.value.code == 0
    assert "python -m fastsam3d finish" in capsys.readouterr().out
