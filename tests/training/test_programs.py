"""The stages as programs: what their user can mend ends in a line on stderr and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastsam3d.cli.main import main


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        ("sparse-structure-flow", "--vae {0}/a.pt --output {0}/run --steps 1", "train the sparse-structure"),
        ("structured-latent-vae", "--start {0}/a.pt --output {0}/run --steps 1", "no checkpoint at {0}/a.pt"),
        ("export", "--slat-vae {0}/run --output {0}/weights", "name the folder of a finished run"),
        ("export", "--ss-flow {0}/run --output {0}/weights", "name the run of --ss-vae too"),
        ("data", "--output {0}/data --objects 10 --first-seed 999999995", "choose a smaller first seed"),
    ],
)
def test_what_is_missing_is_said_without_a_traceback(
    program: str, words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", program, *words.format(tmp_path).split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message.format(tmp_path) in error
    assert list(tmp_path.iterdir()) == []


def test_a_run_needs_a_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "sparse-structure-flow", "--vae", "a.pt", "--output", str(tmp_path)])
    assert "one of the arguments --minutes --steps is required" in capsys.readouterr().err
