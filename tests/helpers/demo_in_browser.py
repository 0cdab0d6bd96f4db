"""The demo as people start it, and the browser that looks at it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
QUICK = ("model.ss_sampler.inference_steps=6", "model.slat_sampler.inference_steps=6", "warm_up=false")
WAIT = 600_000
"""Milliseconds; a run takes seconds, but the machine may be busy."""


class Demo:
    """The server as people start it."""

    def __init__(self, home: Path, *words: str) -> None:
        self.home = home
        environment = os.environ | {"TMPDIR": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "gradio_demo.py"), "port=0", "device=cpu", *words],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=(home / "stderr.txt").open("w"),
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found is not None, (line, (home / "stderr.txt").read_text())
        self.address = found.group()

    def end(self) -> int:
        """Stops it as Ctrl-C does; returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(600)
