"""The command line itself: what it says, where it says it, and how it ends. needs: flask"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.doctored import COMMAND, command

SHOP = """
import threading
import structlog
from flask import Flask

app = Flask(__name__, static_folder=None)
log = structlog.get_logger()
print("imported")


def charge():
    log.info("charging")


@app.get("/")
def home():
    return "home"


@app.get("/cart")
def cart():
    threading.Thread(target=charge).start()
    return "cart"


@app.get("/orders/<int:order_id>")
def order(order_id):
    return "order"
"""

REPORT = """\
200  GET /
200  GET /cart

skipped:
  /orders/<int:order_id>  --example order_id=...

== lost: a request started it without its context ==

lost: line 'charging' logged outside any request, by what GET /cart started without its context
  at       shop.py:12 charge
  from     started at shop.py:22 cart, request ID GET /cart
  in       THREAD
  fix      hand over asok_trace.wrap(charge) there; or asok_trace.propagate_threads("carry") \
for all threads and pools
  ignore   lost:shop.charge

2 requests, 1 finding.
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    return tmp_path


def without_chance(said: str) -> str:
    """``said`` but for what differs each time."""
    words = said.replace("charging\x1b", "").split("\n")
    kept = []
    for line in words:
        start, found, rest = line.partition(", request ")
        if found:
            line = f"{start}{found}ID {rest.partition(' ')[2]}"
        if line.startswith("  in "):
            line = "  in       THREAD"
        kept.append(line)
    return "\n".join(kept)


@pytest.mark.parametrize("start", [(COMMAND,), (sys.executable, "-m", "asok_trace")])
def test_the_report(shop: Path, start: tuple[str | Path, ...]) -> None:
    """What was asked, what was not and why, each finding under its cause, and a verdict: on
    standard output, with nothing of the application's in between; by either name."""
    done = command(shop, "doctor", "shop:app", start=start)
    assert done.status == 1, done.err
    assert without_chance(done.out) == REPORT
    assert "imported" in done.err


def test_a_clean_report(shop: Path) -> None:
    """The status is 0, and the verdict is one line."""
    done = command(shop, "doctor", "shop:app", "--exclude", "/cart", "--example", "order_id=7")
    assert done.status == 0
    assert "200  GET /orders/7  (/orders/<int:order_id>)\n" in done.out
    assert done.out.endswith("\n2 requests, no findings.\n")


def test_nothing_to_request(shop: Path) -> None:
    """Who asked for nothing is not told that all is well."""
    done = command(shop, "doctor", "shop:app", "--exclude", "/*")
    assert done.status == 2
    assert "Nothing was requested" in done.out


BROKEN = {
    "raises.py": "import os\n\nos.environ['NO_SUCH_VARIABLE']\n",
    "exits.py": "raise SystemExit('no licence')\n",
    "needs.py": "import a_package_that_nobody_has\n",
    "syntax.py": "app = = 1\n",
    "makes.py": "def make():\n    raise LookupError('no settings')\n",
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop"], "shop does not name an application. Say MODULE:APP"),
        (["shop:"], "does not name an application"),
        (["nowhere:app"], "there is no module nowhere in "),
        (["shop.sub:app"], "there is no module shop.sub in "),
        (["shop:application"], "shop has no attribute application. Say shop:app."),
        (["shop:charge"], "add --factory"),
        (["shop:a b"], "shop:a b"),
        (["raises:app"], "KeyError: 'NO_SUCH_VARIABLE', raised at raises.py:3 <module>."),
        (["exits:app"], "cannot import exits: SystemExit: no licence"),
        (["needs:app"], "No module named 'a_package_that_nobody_has', raised at needs.py:1"),
        (["syntax:app"], "SyntaxError"),
        (["makes:make", "--factory"], "cannot call makes:make: LookupError: no settings"),
        (["shop:app", "--example", "order_id"], "'order_id' is no example. Say NAME=VALUE"),
        (["shop:app", "--path", "//elsewhere.example/"], "is no path"),
        (["shop:app", "--timeout", "-1"], "'-1' is no number of seconds"),
        (["shop:app", "--grace", "nan"], "'nan' is no number of seconds"),
        ([], "MODULE:APP"),
    ],
)
def test_what_cannot_be_done(shop: Path, arguments: list[str], said: str) -> None:
    """The status is 2, standard output is empty, and one text says why and what to do; no
    traceback."""
    for name, source in BROKEN.items():
        (shop / name).write_text(source, encoding="utf-8")
    done = command(shop, "doctor", "--json", *arguments)
    assert (done.status, done.out) == (2, "")
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_a_bad_variable(shop: Path) -> None:
    """A setting in the environment that cannot be used is said before anything is imported."""
    done = command(shop, "doctor", "shop:app", ASOK_TRACE_THREADS="some")
    assert (done.status, done.out) == (2, "")
    assert 'ASOK_TRACE_THREADS="some" is not a mode' in done.err
    assert "imported" not in done.err


def test_help(tmp_path: Path) -> None:
    """It warns that handlers run for real, and imports no application."""
    done = command(tmp_path, "doctor", "--help")
    assert done.status == 0
    assert "The GET handlers run for real" in done.out
    assert command(tmp_path).status == 2


def test_a_reader_that_goes_away(shop: Path) -> None:
    """`asok-trace doctor ... | head -1` is no error."""
    done = subprocess.run(
        f"{COMMAND} doctor shop:app --grace 0 | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=shop,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_of_ours(shop: Path) -> None:
    """Who could not look properly does not say that all is well."""
    broken = "\nfrom asok_trace.gateway import wsgi\nwsgi._open = None\n"
    (shop / "shop.py").write_text(SHOP + broken, encoding="utf-8")
    done = command(shop, "doctor", "shop:app", "--exclude", "/cart")
    assert done.status == 2
    assert "200  GET /\n" in done.out
    assert "asok_trace itself failed at opening the scope of a request" in done.out


STUBBORN = """
@app.get("/stay")
def stay():
    threading.Thread(target=threading.Event().wait).start()
    return "stays"
"""


def test_the_command_ends(shop: Path) -> None:
    """Threads that the application leaves running do not keep the command from ending, with its
    own status."""
    (shop / "shop.py").write_text(SHOP + STUBBORN, encoding="utf-8")
    done = command(shop, "doctor", "shop:app", "--grace", "0.2")
    assert done.status == 1
    assert done.out.endswith("\n3 requests, 1 finding.\n")
