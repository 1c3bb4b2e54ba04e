"""An attribute that was replaced can be given back, whatever happened to it since."""

from collections.abc import Callable
from typing import Any

from asok_trace.core.hooks import Handle, Hook


class Host:
    def greet(self) -> str:
        return "hello"


def loudly(hook: Hook) -> Callable[..., Any]:
    def greet(*args: Any) -> Any:
        found = hook.original(*args)
        return found.upper() if hook.active else found

    return greet


def test_a_hook_replaces_and_undo_restores() -> None:
    """On an instance the attribute is gone again; on a class the function is the old one."""
    host = Host()
    hook = Hook(host, "greet", loudly)
    assert host.greet() == "HELLO"
    hook.undo()
    assert host.greet() == "hello"
    assert vars(host) == {}

    original = Host.greet
    hook = Hook(Host, "greet", loudly)
    assert Host().greet() == "HELLO"
    hook.undo()
    assert Host.greet is original


def test_undo_under_a_later_wrapper_passes_through() -> None:
    """What somebody wrapped after us stays wrapped, and ours does nothing any more."""
    host = Host()
    hook = Hook(host, "greet", loudly)
    ours = host.greet
    host.greet = lambda: f"<{ours()}>"  # type: ignore[method-assign]
    assert host.greet() == "<HELLO>"
    hook.undo()
    assert host.greet() == "<hello>"


def test_a_handle_undoes_once() -> None:
    """undo() twice is undo() once; a with block undoes at its end."""
    undone: list[str] = []
    handle = Handle(lambda: undone.append("x"), app="app")
    assert handle.app == "app"
    with handle as entered:
        assert entered is handle
        assert undone == []
    handle.undo()
    assert undone == ["x"]
