"""Reconstructs one masked object of a picture: `python infer.py --help`."""

import sys

from fastsam3d.__main__ import run

if __name__ == "__main__":
    sys.exit(run("infer"))
