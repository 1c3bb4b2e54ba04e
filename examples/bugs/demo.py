"""Visit a page of deliberate bugs, and show what asok_trace says of each.

``make demo`` runs this. It copies the application (``wsgi.py`` and ``src/``) into a temporary
directory, serves it there with gunicorn, and visits each bug twice. What was found is compared
with the comments in the page: the kind and the line, once per place however often it happens, and
nothing else. It exits with 1 if a bug was missed, or something was found that is none.
"""

import http.client
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1] / "checking"))

import showing
from serving import Served

SOURCE = Path(__file__).resolve().parent
PAGE = "src/pages/bugs/[bug]/page.py"

VISITS = ("thread", "job", "late", "bound", "kept")

_PLACE = re.compile(r"  at +(.+):(\d+) ")


class Found(NamedTuple):
    """What one finding says: its kind, and the line of the page."""

    slug: str
    line: int


class Bugs(Served):
    """The application in ``directory``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(SOURCE, directory)

    def visit(self, seconds: float) -> None:
        """Serve it, and visit every bug twice."""
        self.copy(["wsgi.py", "gunicorn.conf.py", "src"])
        command = ("gunicorn", "--bind", "{socket}", "wsgi:app")
        with self.serve(*command, seconds=seconds) as port:
            for bug in VISITS * 2:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", f"/bugs/{bug}")
                answer = connection.getresponse()
                answer.read()
                connection.close()
                if answer.status != 200:
                    raise RuntimeError(f"/bugs/{bug} answered {answer.status}")


def expected() -> set[Found]:
    """What the comments in the page say is to be found."""
    lines = (SOURCE / PAGE).read_text("utf-8").splitlines()
    return {
        Found(found[1], 1 if "by its page" in line else number)
        for number, line in enumerate(lines, 1)
        if (found := re.search(r"# FOUND: (\w+)", line))
    }


def told(report: str) -> list[Found]:
    """What the findings say."""
    return [
        Found(text.partition(":")[0], int(place[2]))
        for text in report.split("\n\n")
        if (place := _PLACE.search(text))
    ]


def main() -> int:
    """Run the demo; return its exit status."""
    showing.stop_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="asok-bugs-") as directory:
        bugs = Bugs(Path(directory))
        try:
            bugs.visit(seconds=40)
        except (
            OSError,
            RuntimeError,
            http.client.HTTPException,
            subprocess.SubprocessError,
        ) as error:
            print(f"FAILED: the bugs could not be visited: {error!r}\n\n{bugs.errors()}")
            return 1
        report = bugs.report()
    print(f"{len(VISITS)} bugs, visited twice. What asok_trace says of them:\n\n{report}")
    found, wanted = told(report), expected()
    missed, besides = wanted - set(found), [one for one in found if one not in wanted]
    if missed or besides or len(found) != len(wanted):
        print(f"FAILED: missed {sorted(missed)}; found besides {besides}")
        return 1
    print(f"{len(found)} bugs found, each once, at its line; and nothing else.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
