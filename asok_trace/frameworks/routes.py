"""The pages that an application has for GET, for who wants to visit them all."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote


class Route(NamedTuple):
    """One page, or many of a pattern."""

    pattern: str
    parameters: tuple[str, ...]
    build: Callable[[Mapping[str, str]], str]
    """The path, from a text for each of its parameters. Raises ValueError for one that does not
    fit."""
    unfit: str | None = None
    """Why it is not to be requested, if there is a reason."""


def of(app: Any) -> list[Route] | None:
    """Return the routes of ``app``; None if that cannot be told."""
    for attribute, read in _READERS.items():
        if hasattr(app, attribute):
            return list(read(app))
    return None


def _pallets(app: Any) -> Iterator[Route]:
    """Of Flask and Quart: the rules of their map."""
    for rule in app.url_map.iter_rules():
        if (
            rule.build_only
            or getattr(rule, "websocket", False)
            or "GET" not in (rule.methods or ())
        ):
            continue
        given = rule.arguments - set(rule.defaults or ())
        parameters = tuple(sorted(given, key=rule.rule.find))
        unfit = None
        if rule.endpoint.rpartition(".")[2] == "static":
            unfit = "static files"
        elif rule.subdomain or rule.host:
            unfit = f"on the host {rule.subdomain or rule.host} only"
        yield Route(str(rule.rule), parameters, _building(rule), unfit)


def _building(rule: Any) -> Callable[[Mapping[str, str]], str]:
    def build(values: Mapping[str, str]) -> str:
        made = {name: _converted(rule, name, text) for name, text in values.items()}
        built = rule.build(made, append_unknown=False)
        if built is None:
            raise ValueError("no path can be built of it")
        return str(built[1])

    return build


def _converted(rule: Any, name: str, text: str) -> Any:
    converter = rule._converters[name]  # nowhere in public
    if re.fullmatch(converter.regex, text) is None:
        raise ValueError(f"{name}={text!r} is not what the route takes there")
    return converter.to_python(text)


_PAGES: Final = ("page", "index")
_PAGE_TYPES: Final = (".py", ".pyc", ".html", ".asok")
_BRACKETS: Final = re.compile(r"\[([^\]/:]+)(?::[^\]/]*)?\]")
_BRACES: Final = re.compile(r"\{(\w+)(?::(\w+))?\}")


def _asok(app: Any) -> Iterator[Route]:
    """Of Asok: the folders that hold a page, as `asok routes` lists them."""
    names = {name + kind for name in (app.config["INDEX"], *_PAGES) for kind in _PAGE_TYPES}
    seen = set()
    for root in app._pages_search_paths:
        for folder, _, files in sorted(os.walk(root)):
            pattern = folder[len(root) :].replace(os.sep, "/") or "/"
            if names.isdisjoint(files) or pattern in seen:
                continue
            seen.add(pattern)
            yield Route(pattern, tuple(_BRACKETS.findall(pattern)), _filling(pattern, _BRACKETS))


def _filling(pattern: str, holes: re.Pattern[str]) -> Callable[[Mapping[str, str]], str]:
    def build(values: Mapping[str, str]) -> str:
        def fill(hole: re.Match[str]) -> str:
            whole = holes.groups > 1 and hole.group(2) == "path"
            return quote(values[hole.group(1)], safe="/" if whole else "")

        return holes.sub(fill, pattern)

    return build


def _starlette(app: Any, prefix: str = "") -> Iterator[Route]:
    """Of Starlette and FastAPI, which has a function of its own for what routers include."""
    fastapi = sys.modules.get("fastapi.routing")
    flat = getattr(fastapi, "iter_route_contexts", None)
    for route in app.routes if flat is None else flat(app.routes):
        pattern = prefix + (getattr(route, "path", None) or "")
        if "GET" in (getattr(route, "methods", None) or ()):
            parameters = tuple(hole.group(1) for hole in _BRACES.finditer(pattern))
            yield Route(pattern, parameters, _filling(pattern, _BRACES))
        else:
            mounted = getattr(route, "original_route", route)  # what FastAPI's function wraps
            if getattr(mounted, "routes", None):
                yield from _starlette(mounted, pattern)


_READERS: Final[Mapping[str, Callable[[Any], Iterator[Route]]]] = {
    "url_map": _pallets,
    "_pages_search_paths": _asok,
    "routes": _starlette,
}
"""An attribute that the applications of a framework have -> how to list their routes."""
