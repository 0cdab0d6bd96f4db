"""`python -m fastsam3d VERB ...`: the command line as a module."""

import sys

from fastsam3d.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
