"""Reconstructs every masked object of a picture and composes the scene: `python infer_scene.py --help`."""

import sys

from fastsam3d.cli.main import run

if __name__ == "__main__":
    sys.exit(run("scene"))
