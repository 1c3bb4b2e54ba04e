"""`core.callsite` finds who called, and tells the program's code from a library's."""

import asyncio
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FrameType

import pytest

from asok_trace.core import callsite
from asok_trace.core.callsite import (
    Callsite,
    caller,
    claim,
    in_program,
    is_library,
    module,
    outermost,
    program,
    relative,
    short,
    where,
)


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


@pytest.mark.parametrize(
    ("qualname", "name"),
    [
        ("charge", "charge"),
        ("View.post", "View.post"),
        ("make.<locals>.View.post", "View.post"),
        ("make.<locals>.run", "run"),
        ("<lambda>", "<lambda>"),
        ("make.<locals>.<lambda>", "make.<lambda>"),
        ("a.<locals>.b.<locals>.<lambda>", "b.<lambda>"),
        ("make.<locals>.<listcomp>", "make"),
        ("make.<locals>.<genexpr>.<locals>.<lambda>", "<genexpr>.<lambda>"),
        ("<listcomp>", "<module>"),
        ("<module>", "<module>"),
    ],
)
def test_a_functions_name(qualname: str, name: str) -> None:
    """As short as it can be told apart; a comprehension is the function's that it is in."""
    assert short(qualname) == name


def test_files_are_told_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of this moment; whole where they are elsewhere, or it is gone."""
    place = compile("pass", str(tmp_path / "shop" / "views.py"), "exec")
    assert where(place, 3) == f"{tmp_path / 'shop' / 'views.py'}:3 <module>"
    monkeypatch.chdir(tmp_path)
    assert where(place, 3) == f"shop{os.sep}views.py:3 <module>"
    (tmp_path / "sho").mkdir()
    monkeypatch.chdir(tmp_path / "sho")
    assert where(place, 3) == f"{tmp_path / 'shop' / 'views.py'}:3 <module>"
    (tmp_path / "sho").rmdir()
    assert relative(place.co_filename) == place.co_filename


def framed(names: dict[str, object]) -> FrameType:
    """A frame of a module with these globals."""
    exec(code("found = ask()", "app.py"), names | {"ask": lambda: kept.append(sys._getframe(1))})
    return kept.pop()


kept: list[FrameType] = []


def test_a_module_that_was_started_by_its_name() -> None:
    """``python -m shop.worker`` is not ``__main__``; ``python worker.py`` is."""
    spec = ModuleSpec("shop.worker", None)
    assert module(framed({"__name__": "json.decoder"})) == "json.decoder"
    assert module(framed({"__name__": "__main__", "__spec__": spec})) == "shop.worker"
    assert module(framed({"__name__": "__main__", "__spec__": None})) == "__main__"
    assert module(framed({"__name__": 5})) == "?"


def test_what_runs_the_program_ends_the_search() -> None:
    """Who has started the loop did not make the call that the loop makes."""
    library: dict[str, object] = {"__name__": "driver", "ask": lambda: sys._getframe(1)}
    exec(code("def go(): return ask()", "/env/site-packages/driver.py"), library)
    go = library["go"]
    assert callable(go)

    async def called() -> list[FrameType | None]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[FrameType | None] = loop.create_future()
        loop.call_soon(own_result)
        loop.call_soon(library_result, found)
        return [in_program(go()), await found]

    def own_result() -> None:
        assert outermost(sys._getframe()).f_code is own_result.__code__

    namespace: dict[str, object] = {"__name__": "driver", "in_program": in_program, "sys": sys}
    source = "def library_result(future): future.set_result(in_program(sys._getframe()))"
    exec(code(source, "/env/site-packages/driver.py"), namespace)
    library_result = namespace["library_result"]
    assert callable(library_result)
    by_us, by_loop = asyncio.run(called())
    assert by_us is not None
    assert by_us.f_code is called.__code__
    assert by_loop is None


def test_a_module_with_a_made_up_name() -> None:
    """Asok loads each page under a name with a number of this process: its file stays the same."""
    assert module(framed({"__name__": "page_139896675646608"})) == "app"
