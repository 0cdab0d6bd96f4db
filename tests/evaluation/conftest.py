from __future__ import annotations

import sys
from pathlib import Path

# evaluation_shapes.py beside this file holds what several of these tests share.
sys.path.insert(0, str(Path(__file__).parent))
