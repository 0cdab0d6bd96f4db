"""Reads hostile files in a process of its own, within a time and an amount of memory, and tells what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """
import importlib, json, resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
module, _, name = sys.argv[1].rpartition(".")
read = getattr(importlib.import_module(module), name)
import torch, PIL.Image, omegaconf, safetensors.torch, fastsam3d.meshes.gltf_reading, fastsam3d.meshes.formats
fastsam3d.meshes.formats.mesh_formats()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20, resource.RLIM_INFINITY))
for path in sys.argv[3:]:
    begin = time.process_time()
    try:
        read(Path(path))
        outcome, text = "read", ""
    except BaseException as error:
        outcome, text = type(error).__name__, str(error)[:500]
    print(json.dumps([path, outcome, text, time.process_time() - begin]), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a file: "read" or the exception's name, its text, and the seconds of the processor."""

    kind: str
    text: str
    seconds: float


def outcomes(reader: str, paths: Sequence[Path], megabytes: int = 500, timeout: float = 60.0) -> dict[str, Outcome]:
    """Reads files one after the other with a function, named with its module; returns what became of each by name."""
    helpers = str(Path(__file__).parent)
    words = [sys.executable, "-c", SCRIPT, helpers, reader, str(megabytes), *map(str, paths)]
    finished = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len(lines) == len(paths)
    return {Path(path).name: Outcome(kind, text, seconds) for path, kind, text, seconds in lines}


def assert_refused(reader: str, files: dict[str, tuple[Path, str]], seconds: float = 5.0) -> None:
    """Every file ends in a UserError with the expected words, in time."""
    found = outcomes(reader, [path for path, _ in files.values()])
    for path, words in files.values():
        outcome = found[path.name]
        assert outcome.kind == "UserError", (path.name, outcome)
        assert words in outcome.text, (path.name, outcome)
        assert outcome.seconds < seconds, (path.name, outcome)
