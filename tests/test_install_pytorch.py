"""Which build of PyTorch `make` takes: the script, with stand-ins for other programs. It installs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "environments" / "install_pytorch.sh"
PYTHON = """#!/bin/sh
echo "python $*" >> "$LOG"
case "$*" in
  -c*) exit 1 ;;                      # PyTorch is not there yet
  *"config list"*) echo "$SOURCES" ;;
  *--target*)                         # uv, which fails where UV=1
    mkdir -p "$7/bin"
    printf '#!/bin/sh\\necho "uv $*" >> "$LOG"\\nexit %s\\n' "$UV" > "$7/bin/uv"
    chmod +x "$7/bin/uv" ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh here")


@pytest.fixture
def install(tmp_path):
    """Runs the script; returns (what it said, the commands that it ran)."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def program(name: str, text: str) -> None:
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)

    def run(system="Linux x86_64", card=False, sources="", uv_fails=False, **environment):
        program("python", PYTHON)
        program("uname", f'#!/bin/sh\n[ "$1" = -s ] && echo {system.split()[0]} || echo {system.split()[1]}\n')
        program("nvidia-smi", f"#!/bin/sh\n{'echo GPU 0: a card' if card else 'exit 9'}\n")
        log = tmp_path / "log"
        log.write_text("", encoding="utf-8")
        known = {
            "LOG": str(log),
            "SOURCES": sources,
            "UV": str(int(uv_fails)),
            "PATH": f"{folder}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["sh", str(SCRIPT), str(folder / "python")],
            env=known | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout, [line for line in log.read_text(encoding="utf-8").splitlines() if "torch" in line][1:]

    return run


def test_without_a_card_the_build_for_cpus_is_taken(install):
    said, ran = install()
    assert "No NVIDIA card was found" in said and "0.2 GB to download" in said and "CUDA: 2.7" not in said
    (command,) = ran
    assert command.startswith("uv pip install") and "--torch-backend=cpu" in command and "--no-deps" in command


def test_where_it_cannot_be_fetched_the_way_out_is_said_before_the_large_download(install):
    said, ran = install(uv_fails=True)
    assert said.index("TORCH_INDEX=ADDRESS") < said.index("PyTorch for CUDA: 2.7 GB to download")
    assert len(ran) == 2 and "-m pip install" in ran[1] and ran[1].endswith("torch")


def test_with_a_card_or_on_request_pip_chooses(install):
    for said, ran in (install(card=True), install(TORCH_BUILD="usual")):
        assert "2.7 GB to download" in said
        assert [command.startswith("python -m pip install") for command in ran] == [True]
    assert "uv pip" in install(card=True, TORCH_BUILD="cpu")[1][0]


def test_sources_of_pip_decide_where_it_has_some(install):
    said, ran = install(sources="global.find-links='/wheels'")
    assert "pip has sources of its own" in said and "2.7" not in said
    assert [command.startswith("python -m pip install") for command in ran] == [True]


def test_other_systems_get_what_pip_chooses_and_an_index_wins(install):
    said, ran = install(system="Darwin arm64")
    assert said == "" and len(ran) == 1
    _, ran = install(TORCH_INDEX="file:///builds")
    assert "--index-url file:///builds" in ran[0] and len(ran) == 1
