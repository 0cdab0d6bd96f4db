"""Reconstructs one masked object of a picture: `python infer.py --help`."""

import sys

from fastsam3d.cli.main import run

if __name__ == "__main__":
    sys.exit(run("infer"))
