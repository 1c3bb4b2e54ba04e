"""The modules of the example shop find each other by their short names, as when it is run."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "examples" / "shop"))
