"""Import the application that a command was given, or say why that cannot be done."""

import inspect
import os
import pkgutil
import sys
from importlib import import_module
from types import TracebackType
from typing import Any

from asok_trace.core import text
from asok_trace.core.callsite import claim, in_program, where
from asok_trace.frameworks import base


class Unusable(Exception):  # noqa: N818  # the text is for whoever gave the command
    """The command cannot be carried out as it was given."""


def load(target: str, *, factory: bool) -> Any:
    """Return the application that ``target`` names; with ``factory``, what it returns.

    Raises:
        Unusable: there is none, or it cannot be imported.
    """
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise Unusable(
            f"{target} does not name an application. Say MODULE:APP, such as shop.wsgi:app."
        )
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise Unusable(_cannot(f"import {module}", error)) from None
        raise Unusable(
            f"{target}: there is no module {error.name} in {here}, nor on Python's path. "
            f"Run the command where the application is started, or set PYTHONPATH."
        ) from None
    except (Exception, SystemExit) as error:
        raise Unusable(_cannot(f"import {module}", error)) from None
    claim(getattr(found, "__file__", None) or "")
    try:
        app = pkgutil.resolve_name(target)
    except AttributeError:
        hint = _hint(module, vars(found))
        raise Unusable(f"{target}: {module} has no attribute {attribute}. {hint}") from None
    except ValueError as error:
        raise Unusable(f"{target} does not name an application: {error}.") from None
    if not factory:
        if base.of_app(app) is None and _is_factory(app):
            raise Unusable(
                f"{target} is a function without arguments, which no server can call. If "
                f"it makes the application, add --factory."
            )
        return app
    try:
        return app()
    except (Exception, SystemExit) as error:
        raise Unusable(_cannot(f"call {target}", error)) from None


def _hint(module: str, names: dict[str, Any]) -> str:
    for name, one in names.items():
        if base.of_app(one) is not None:
            return f"Say {module}:{name}."
        if name in ("create_app", "make_app") and callable(one):
            return f"Say {module}:{name} with --factory."
    return "Say the name that your server is given."


def _is_factory(app: Any) -> bool:
    try:
        return callable(app) and not inspect.signature(app).parameters
    except (TypeError, ValueError):
        return False


def _cannot(what: str, error: BaseException) -> str:
    at = _innermost(error.__traceback__)
    said = text.clean(str(error), text.VALUE_LIMIT)
    return (
        f"cannot {what}: {type(error).__name__}{': ' if said else ''}{said}"
        f"{f', raised at {at}' if at else ''}. The doctor needs what the application needs to "
        f"start: its environment variables, packages and working directory."
    )


def _innermost(trace: TracebackType | None) -> str | None:
    """The last place of the program's own that ``trace`` passes."""
    at = None
    while trace is not None:
        frame = trace.tb_frame
        if in_program(frame) is frame:
            at = where(frame.f_code, trace.tb_lineno)
        trace = trace.tb_next
    return at
