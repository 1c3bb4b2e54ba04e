"""`instrument` hooks an application up once, explains what it cannot do, and can be undone.

needs: asok
"""

from pathlib import Path

import pytest
from asok import Asok

import asok_trace


@pytest.fixture
def app(tmp_path: Path) -> Asok:
    """An empty Asok application."""
    (tmp_path / "src" / "pages").mkdir(parents=True)
    return Asok(str(tmp_path))


def hooked(app: Asok) -> set[str]:
    return {name for name in vars(app) if name in HOOKED}


HOOKED = {
    "_wsgi_call",
    "_asgi_call",
    "_build_environ_from_asgi",
    "_resolve_request_page",
    "_asok_trace",
}


def test_instrument_hooks_the_object_and_undo_gives_it_back(app: Asok) -> None:
    """The application stays the object it was; afterwards nothing of ours is on it."""
    with asok_trace.instrument(app) as handle:
        assert handle.app is app
        assert hooked(app) == HOOKED
    assert hooked(app) == set()


def test_instrument_is_idempotent(app: Asok) -> None:
    """Again, with the same settings or none, is the same handle; after undo() it starts anew."""
    handle = asok_trace.instrument(app, isolate=False)
    assert asok_trace.instrument(app) is handle
    assert asok_trace.instrument(app, isolate=False) is handle
    handle.undo()
    again = asok_trace.instrument(app)
    assert again is not handle
    again.undo()


def test_other_settings_are_refused(app: Asok) -> None:
    """Two sets of settings cannot both hold: the error names the first and the way out."""
    with (
        asok_trace.instrument(app),
        pytest.raises(asok_trace.ConfigError, match=r"is instrumented already.*call undo\(\)"),
    ):
        asok_trace.instrument(app, isolate=False)


def test_what_is_no_application_is_refused() -> None:
    """The error says what was given and what is wanted."""
    with pytest.raises(asok_trace.ConfigError, match=r"cannot be instrumented.*Pass the appl"):
        asok_trace.instrument(object())


def test_a_bad_setting_hooks_nothing(app: Asok) -> None:
    """A typo leaves the application as it was."""
    with pytest.raises(asok_trace.ConfigError, match="acces_log=True is not a setting"):
        asok_trace.instrument(app, acces_log=True)
    assert hooked(app) == set()


def test_a_subclass_is_an_application_too(tmp_path: Path) -> None:
    """An application class derived from Asok is found by its ancestry."""

    class Shop(Asok):  # type: ignore[misc]
        pass

    (tmp_path / "src" / "pages").mkdir(parents=True)
    with asok_trace.instrument(Shop(str(tmp_path))) as handle:
        assert hooked(handle.app) == HOOKED


def test_a_set_up_that_fails_half_way_is_taken_back(
    app: Asok, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that this version of the framework does not have leaves nothing hooked."""
    for cls in type(app).__mro__:
        if "_resolve_request_page" in vars(cls):
            monkeypatch.delattr(cls, "_resolve_request_page")
    with pytest.raises(AttributeError):
        asok_trace.instrument(app)
    assert hooked(app) == set()
