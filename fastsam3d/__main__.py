"""`python -m fastsam3d VERB ...`: the door to the command line."""

import sys

from fastsam3d.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
