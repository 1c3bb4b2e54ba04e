"""``python -m tests.outside jaeger loki`` builds them, unless that is done, and says where."""

import sys

from tests.outside import build

for name in sys.argv[1:]:
    print(build(name))
