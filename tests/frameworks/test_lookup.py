"""Without a gateway, the framework's current request itself carries the scope.

needs: asok
"""

import gc
import importlib
import sys
import threading
import weakref
from contextvars import copy_context
from typing import Any

import pytest
from asok import Request
from asok.context import request_context

import asok_trace
from asok_trace.core import settings
from asok_trace.core.scope import Fields
from asok_trace.frameworks import base, lookup


def fields_here() -> Fields | None:
    """What a line logged here is stamped with."""
    scope = lookup.here()
    return None if scope is None else scope.line()


def a_request(**environ: Any) -> Request:
    """A request as a server's environ makes it."""
    return Request({"REQUEST_METHOD": "GET", "PATH_INFO": "/p", "REMOTE_ADDR": "1.2.3.4"} | environ)


def test_outside_any_request_there_is_no_scope() -> None:
    """No framework request, no fields; current() is None and bind() does nothing."""
    assert fields_here() is None
    assert asok_trace.current() is None
    asok_trace.bind(tenant=1)


def test_one_request_has_one_scope() -> None:
    """Every line asks anew and gets the same id; another request gets another."""
    one, two = a_request(), a_request()
    with request_context(one):
        first = asok_trace.current()
        assert first is not None
        assert asok_trace.current() is first
        # No session is loaded to learn the user: unknown, so absent.
        assert first.fields == {"request_id": first.request_id, "ip": "1.2.3.4", "path": "/p"}
    with request_context(two):
        second = asok_trace.current()
    assert second is not None
    assert second.request_id != first.request_id


def test_bound_facts_stay_with_the_request() -> None:
    """bind() works without a gateway too."""
    with request_context(a_request()):
        asok_trace.bind(tenant="t1")
        fields = fields_here()
    assert fields is not None
    assert fields["tenant"] == "t1"


def test_an_incoming_id_is_taken_if_it_is_trusted_and_good() -> None:
    """X-Request-ID is validated; trust_incoming=False and another header name are followed."""

    def id_of(**environ: str) -> str:
        with request_context(a_request(**environ)):
            scope = asok_trace.current()
        assert scope is not None
        return scope.request_id

    assert id_of(HTTP_X_REQUEST_ID="good") == "good"
    assert id_of(HTTP_X_REQUEST_ID="not good") != "not good"
    settings.set_default(settings.Settings(trust_incoming=False))
    assert id_of(HTTP_X_REQUEST_ID="good") != "good"
    settings.set_default(settings.Settings(request_id_header="X-Other"))
    assert id_of(HTTP_X_OTHER="other", HTTP_X_REQUEST_ID="good") == "other"


def test_threads_that_see_the_request_see_the_same_id() -> None:
    """Also when the first lines of all of them are logged at once."""
    barrier, ids = threading.Barrier(8), []

    def work() -> None:
        barrier.wait()
        fields = fields_here()
        assert fields is not None
        ids.append(fields["request_id"])

    with request_context(a_request()):
        threads = [threading.Thread(target=copy_context().run, args=(work,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_the_scope_dies_with_the_request() -> None:
    """No circle is made: the request is freed at once, without a collection."""
    gc.disable()
    try:
        request = a_request()
        alive = weakref.ref(request)
        with request_context(request):
            assert fields_here() is not None
        del request
        assert alive() is None
    finally:
        gc.enable()


def test_the_user_resolver_of_the_environment_is_asked() -> None:
    """ASOK_TRACE_USER holds for the bare one-liner too."""
    settings.set_default(settings.Settings(user=lambda request: request.path))
    with request_context(a_request()):
        fields = fields_here()
    assert fields is not None
    assert fields["user"] == "/p"


def test_modules_thrown_away_and_imported_anew_are_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`asok dev` does that: the framework's variable is looked up when it is read."""
    request = a_request()
    monkeypatch.delitem(sys.modules, "asok.context")
    with request_context(request):
        assert fields_here() is None
    module = importlib.import_module("asok.context")
    assert module.request_context is not request_context
    with module.request_context(request):
        assert fields_here() is not None


def test_a_fault_is_contained(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An adapter that fails is reported once; the line goes without a stamp."""
    monkeypatch.setattr(base.adapter("asok.context"), "unowned", lambda request: 1 / 0)
    with request_context(a_request()):
        assert fields_here() is None
        assert fields_here() is None
    assert caplog.text.count("reading the framework's current request failed") == 1
