"""Flags that are made of a dataclass's fields."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fastsam3d.basics.flags import flag, parse_flags
from fastsam3d.basics.options import boolean


@dataclass(frozen=True, kw_only=True)
class Length:
    minutes: float | None = flag(float, "length in minutes", None, one_of="length")
    steps: int | None = flag(int, "length in steps", None, one_of="length")


@dataclass(frozen=True, kw_only=True)
class Options(Length):
    output: str = flag(str, "where to")
    learning_rate: float = flag(float, "how fast", 1e-3)
    compile: bool = flag(boolean, "compile first", False)


def test_values_and_defaults():
    words = ["--output", "a", "--steps", "3", "--compile"]
    assert parse_flags(Options, words, "program") == Options(output="a", steps=3, compile=True)
    words = ["--output", "a", "--minutes", "0.5", "--learning-rate", "2e-2"]
    assert parse_flags(Options, words, "program") == Options(output="a", minutes=0.5, learning_rate=0.02)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "3"], "the following arguments are required: --output"),
        (["--output", "a"], "one of the arguments --minutes --steps is required"),
        (["--output", "a", "--steps", "3", "--minutes", "1"], "not allowed with argument"),
        (["--output", "a", "--steps", "x"], "invalid int value: 'x'"),
        (["--output", "a", "--steps", "3", "--speed", "1"], "unrecognized arguments: --speed"),
    ],
)
def test_what_cannot_be_used_is_said(words, message, capsys):
    with pytest.raises(SystemExit) as leaving:
        parse_flags(Options, words, "program")
    assert leaving.value.code == 2 and message in capsys.readouterr().err


def test_help_names_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as leaving:
        parse_flags(Options, ["--help"], "program", "Does something.")
    assert leaving.value.code == 0
    stdout = capsys.readouterr().out
    assert stdout.startswith("usage: program ") and "Does something." in stdout
    assert "--learning-rate" in stdout and "how fast (default 0.001)" in stdout
