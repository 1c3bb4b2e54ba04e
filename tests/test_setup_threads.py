"""`setup` carries contexts into threads, `instrument` does when it is told to; by keyword or by
the environment, until it is undone.

needs: asok
"""

from pathlib import Path

import pytest

from tests.programs import run

SECRET_KEY = "a-key-for-tests-that-is-long-enough-0123456789"

# Applications, and what really happens to a thread, a timer and a job for a pool.
START = """
import concurrent.futures, logging, pathlib, threading
import asok_trace
from asok_trace.detect.origin import SPAWNED
from asok import Asok

untouched = threading.Thread.start, concurrent.futures.ThreadPoolExecutor.submit

def make():
    pathlib.Path({root!r}, "src", "pages").mkdir(parents=True, exist_ok=True)
    app = Asok({root!r})
    logging.getLogger("asok").handlers.clear()
    return app

def mode():
    seen = []

    def look():
        seen.append((asok_trace.current(), SPAWNED.get()))

    with asok_trace.scope("nightly") as scope:
        thread, timer = threading.Thread(target=look), threading.Timer(0, look)
        for one in thread, timer:
            one.start()
            one.join()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(look).result()
    assert len(seen) == 3
    [found] = {{
        "carry" if inside is scope else "watch" if spawned is not None else "off"
        for inside, spawned in seen
    }}
    now = threading.Thread.start, concurrent.futures.ThreadPoolExecutor.submit
    assert (found == "off") == (now == untouched), found
    return found

app = make()
assert mode() == "off"
"""


def execute(root: Path, program: str, **environment: str) -> list[str]:
    """The lines that ``program`` prints after the start."""
    environment = {"SECRET_KEY": SECRET_KEY, **environment}
    return run(START.format(root=str(root)) + program, **environment).splitlines()


SHOW = """
for call in {calls}:
    with eval(call):
        print(call, mode())
    assert mode() == "off", call
"""

KEYWORDS = {
    "asok_trace.setup()": "carry",
    "asok_trace.setup(app)": "carry",
    "asok_trace.instrument(app)": "off",
    "asok_trace.setup(threads='off')": "off",
    "asok_trace.setup(app, threads='off')": "off",
    "asok_trace.setup(threads='watch')": "watch",
    "asok_trace.setup(app, threads='watch')": "watch",
    "asok_trace.setup(app, threads='carry')": "carry",
    "asok_trace.instrument(app, threads='off')": "off",
    "asok_trace.instrument(app, threads='watch')": "watch",
    "asok_trace.instrument(app, threads='carry')": "carry",
}


def test_by_keyword(tmp_path: Path) -> None:
    """What holds until the handle is undone, and that nothing does afterwards."""
    assert execute(tmp_path, SHOW.format(calls=list(KEYWORDS))) == [
        f"{call} {expected}" for call, expected in KEYWORDS.items()
    ]


@pytest.mark.parametrize("by", ["level='strict'", "the environment"])
def test_strict_watches_what_nobody_has_spoken_of(tmp_path: Path, by: str) -> None:
    """What it implies never takes the place of what was asked for, whichever comes first, and
    whichever is undone first; what was asked for last does."""
    program = """
def strict(**more):
    return asok_trace.instrument(app, {level} **more)

with strict():
    print(mode())
calls = [asok_trace.setup, strict]
for first, second in (calls, calls[::-1]):
    for at in (0, 1):
        handles = [first(), second()]
        print(mode())
        handles.pop(at).undo()
        print(mode())
        handles[0].undo()
assert mode() == "off"
with asok_trace.setup(), strict(threads="watch"):
    print(mode())
with strict(threads="watch"), asok_trace.setup():
    print(mode())
"""
    level, environment = "", {"ASOK_TRACE_LEVEL": "strict"}
    if by != "the environment":
        level, environment = f"{by},", {}
    said = execute(tmp_path, program.format(level=level), **environment)
    # Undone first: setup, instrument; and the other way round.
    both = ["carry", "watch", "carry", "carry"]
    other = ["carry", "carry", "carry", "watch"]
    assert said == ["watch", *both, *other, "watch", "carry"]


@pytest.mark.parametrize("given", ["off", "watch", "carry"])
def test_by_the_environment(tmp_path: Path, given: str) -> None:
    """ASOK_TRACE_THREADS holds for both, with an application and without."""
    calls = ["asok_trace.setup()", "asok_trace.setup(app)", "asok_trace.instrument(app)"]
    assert execute(tmp_path, SHOW.format(calls=calls), ASOK_TRACE_THREADS=given) == [
        f"{call} {given}" for call in calls
    ]


def test_a_keyword_wins_over_the_environment(tmp_path: Path) -> None:
    """As it does for every setting."""
    call = "asok_trace.setup(app, threads='watch')"
    said = execute(tmp_path, SHOW.format(calls=[call]), ASOK_TRACE_THREADS="off")
    assert said == [f"{call} watch"]


def test_a_value_that_is_none(tmp_path: Path) -> None:
    """It is refused with the values there are, by keyword and in the environment, and nothing is
    set up."""
    program = """
import structlog
for call in asok_trace.setup, lambda **how: asok_trace.instrument(app, **how):
    try:
        call(threads="sometimes")
    except asok_trace.ConfigError as error:
        print(error)
print(mode(), structlog.is_configured(), "_asok_trace" in vars(app))
"""
    first, second, after = execute(tmp_path, program)
    assert first == second
    assert first == "threads='sometimes' is not a mode. Use one of ('off', 'watch', 'carry')."
    assert after == "off False False"
    with pytest.raises(AssertionError, match=r"ConfigError: ASOK_TRACE_THREADS=\"maybe\" is not"):
        execute(tmp_path, "asok_trace.setup()", ASOK_TRACE_THREADS="maybe")


def test_two_applications(tmp_path: Path) -> None:
    """Set up one after the other: contexts are carried until the last is undone, whichever that
    is; setting up again what is set up changes nothing for long."""
    program = """
for order in (0, 1), (1, 0):
    handles = [asok_trace.setup(app), asok_trace.setup(make())]
    assert mode() == "carry"
    for number in order:
        print(mode())
        handles[number].undo()
    print(mode())

first = asok_trace.setup(app)
again = asok_trace.setup(app)
again.undo()
print(mode())
first.undo()
print(mode())
"""
    assert execute(tmp_path, program) == ["carry", "carry", "off"] * 2 + ["carry", "off"]


def test_an_application_beside_setup(tmp_path: Path) -> None:
    """`instrument` says nothing of threads, so what `setup` has said holds; off said of one
    application leaves another's alone."""
    program = """
with asok_trace.setup():
    with asok_trace.instrument(app):
        print(mode())
    print(mode())
    with asok_trace.instrument(make(), threads="off"):
        print(mode())
print(mode())
with asok_trace.instrument(app, threads="watch"):
    with asok_trace.instrument(make(), threads="carry"):
        print(mode())
    print(mode())
"""
    assert execute(tmp_path, program) == ["carry", "carry", "carry", "off", "carry", "watch"]
