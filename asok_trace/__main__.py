"""``python -m asok_trace`` is ``asok-trace``."""

import sys

from asok_trace.tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
