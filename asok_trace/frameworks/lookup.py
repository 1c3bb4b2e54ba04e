"""Which scope is this: the one a gateway opened, or that of a framework's current request."""

import sys

from asok_trace.core.scope import ACTIVE, Fields, Scope
from asok_trace.frameworks.base import adapter, current_request

_modules = sys.modules
_PALLETS = ("quart.globals", "flask.globals")


def unowned() -> Scope | None:
    """Return the scope of a loaded framework's current request, when no gateway opened one.

    It is kept on the request and never set in `ACTIVE`: it has no end, so it cannot outlive
    the request, and every thread that sees the request sees the same id.
    """
    try:
        # `current()` of each framework in `loaded()`, written out: every line outside a request
        # comes here.
        module = _modules.get("asok.context")
        if module is not None:
            request = module.request_var.get()
            if request is not None:
                return adapter("asok.context").unowned(request)
        if "flask.globals" in _modules:  # Quart loads it, too
            for marker in _PALLETS:
                if marker in _modules:
                    framework = adapter(marker)
                    request = framework.current()
                    if request is not None:
                        return framework.unowned(request)
    except Exception as error:
        current_request.failed(error)
    return None


def here() -> Scope | None:
    """Return the scope of this context, open or closed; None outside any request."""
    return ACTIVE.get() or unowned()


def facts() -> Fields | None:
    """Return what a span started now is stamped with; None outside any request."""
    scope = here()
    return None if scope is None else scope.fresh()


def current() -> Scope | None:
    """Return the open scope of this context, or None outside any request.

    Without a gateway it is made for the framework's current request, and never closes. Costs
    0.1 microseconds.
    """
    scope = here()
    return scope if scope is not None and scope._open else None


def bind(**facts: object) -> None:
    """Put facts of the *whole request* (``user=``, ``tenant=``) on every later line of it, in
    every thread and task that carries it. They win over what the framework says.

    Facts of one task belong in a bound logger or in `scope()`: siblings share one scope.
    Outside any request it does nothing. Costs 2 microseconds.

    Args:
        facts: turned into text of at most 1,024 characters (``user``: 256); None stays None.

    Raises:
        ConfigError: ``request_id``, ``trace_id`` or ``span_id``, which must stay what they are
            in the response and the trace.
    """
    scope = current()
    if scope is not None:
        scope.bind(facts)
