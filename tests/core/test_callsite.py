"""`core.callsite` finds who called, and tells the program's code from a library's."""

import sys
import sysconfig
import threading
from collections.abc import Iterator
from types import CodeType, FrameType

import pytest

from asok_trace.core import callsite
from asok_trace.core.callsite import Callsite, caller, claim, is_library, program


@pytest.fixture(autouse=True)
def unclaimed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test claims is forgotten after it."""
    monkeypatch.setattr(callsite, "_own", set())
    is_library.cache_clear()
    yield
    is_library.cache_clear()


def code(source: str, filename: str) -> CodeType:
    return compile(source, filename, "exec")


def called_from(module: str, ask: object = caller) -> object:
    """What ``ask`` returns when code of ``module`` calls it."""
    names = {"__name__": module, "ask": ask}
    exec(code("found = ask()", f"/somewhere/{module}.py"), names)
    return names["found"]


@pytest.mark.parametrize(
    "module",
    [
        "asok_trace",
        "asok_trace.propagate.threads",
        "wrapt.wrappers",
        "opentelemetry.instrumentation.threading",
        "sentry_sdk.integrations.threading",
    ],
)
def test_those_who_wrap_what_we_wrap_are_passed_over(module: str) -> None:
    """The caller is who called them."""
    found = called_from(module)
    assert isinstance(found, FrameType)
    assert found.f_code is called_from.__code__


@pytest.mark.parametrize(
    "module", ["shop", "asok_tracery", "wrapting", "opentelemetry.sdk.trace", "sentry_sdk.worker"]
)
def test_everybody_else_is_the_caller(module: str) -> None:
    """Also who is called almost like them, and what they start for themselves."""
    found = called_from(module)
    assert isinstance(found, FrameType)
    assert found.f_code.co_filename == f"/somewhere/{module}.py"


@pytest.mark.parametrize("module", [None, 5, ""])
def test_code_without_a_name(module: object) -> None:
    """Executed code may say anything of its module, or nothing."""
    names = {"__name__": module, "ask": caller}
    exec(code("found = ask()", "made up"), names)
    assert names["found"].f_code.co_filename == "made up"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("filename", "library"),
    [
        (threading.__file__, True),
        (sysconfig.get_paths()["stdlib"] + "/asyncio/base_events.py", True),
        ("<frozen importlib._bootstrap>", True),
        (pytest.__file__, True),
        ("/env/lib/python3.11/site-packages/driver/pool.py", True),
        ("/usr/lib/python3/dist-packages/driver.py", True),
        ("C:\\env\\Lib\\site-packages\\driver\\pool.py", True),
        (__file__, False),
        ("/srv/shop/views.py", False),
        ("/srv/my-site-packages/views.py", False),
        ("views.py", False),
        ("<string>", False),
        ("<stdin>", False),
        ("", False),
    ],
)
def test_what_is_a_library(filename: str, library: bool) -> None:
    """What was installed, and the standard library; on Windows as well."""
    assert is_library(filename) is library


@pytest.mark.parametrize(
    ("claimed", "own", "others"),
    [
        (
            "/env/site-packages/shop/main.py",
            ["/env/site-packages/shop/views/cart.py", "/env/site-packages/shop/main.py"],
            ["/env/site-packages/shopper/main.py", "/other/site-packages/shop/main.py"],
        ),
        (
            "/env/site-packages/shop.py",
            ["/env/site-packages/shop.py"],
            ["/env/site-packages/shop/main.py", "/env/site-packages/driver.py"],
        ),
        (
            "C:\\env\\site-packages\\shop\\main.py",
            ["C:\\env\\site-packages\\shop\\views.py"],
            ["C:\\env\\site-packages\\driver\\pool.py"],
        ),
        ("/srv/shop/main.py", ["/srv/shop/main.py"], ["/env/site-packages/driver.py"]),
        ("<string>", ["<string>"], [threading.__file__]),
    ],
)
def test_an_installed_program_is_claimed(claimed: str, own: list[str], others: list[str]) -> None:
    """Its own package is the program from then on, also for who was asked before; its
    neighbours are not."""
    for filename in own + others:
        is_library(filename)
    claim(claimed)
    assert [is_library(filename) for filename in own] == [False] * len(own)
    assert [is_library(filename) for filename in others] == [True] * len(others)


def test_the_place_in_the_program() -> None:
    """The innermost call that no library made; the frame itself if they made all of them."""
    names = {"__name__": "driver", "ask": caller}
    exec(code("def go(): return ask()", "/env/site-packages/driver.py"), names)
    found = program(names["go"]())  # type: ignore[operator]
    assert found.f_code is test_the_place_in_the_program.__code__


def test_a_place_among_libraries_alone() -> None:
    """A thread that a library runs has no line of the program in it: then it is the library's."""
    names = {"__name__": "driver", "ask": lambda: program(sys._getframe(1)), "found": []}
    exec(code("def go(): found.append(ask())", "/env/site-packages/driver.py"), names)
    thread = threading.Thread(target=names["go"])  # type: ignore[arg-type]
    thread.start()
    thread.join()
    [found] = names["found"]  # type: ignore[misc]
    assert found.f_code.co_filename == "/env/site-packages/driver.py"


def test_a_place_is_told_as_file_line_and_function() -> None:
    """The line that it is at, not the function's."""
    frame = caller()
    assert frame is not None
    site = Callsite(frame.f_code, frame.f_lasti)
    line = frame.f_code.co_firstlineno + 4
    assert site.line == line
    function = "test_a_place_is_told_as_file_line_and_function"
    assert str(site) == f"{relative(__file__)}:{line} {function}"


def test_a_place_without_an_instruction() -> None:
    """Where the function begins."""
    made = code("\n\npass", "x.py")
    assert Callsite(made, -1).line == made.co_firstlineno
