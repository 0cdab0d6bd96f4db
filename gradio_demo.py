"""Serves the demo page: `python gradio_demo.py --help`."""

import sys

from fastsam3d.cli.main import run

if __name__ == "__main__":
    sys.exit(run("demo"))
