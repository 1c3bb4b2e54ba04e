"""The modules of the examples find each other by their short names, as when they are run."""

import sys

from tests.examples.demos import EXAMPLES

sys.path += [str(EXAMPLES / "checking"), str(EXAMPLES / "shop")]
