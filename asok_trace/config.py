"""Settings from arguments, then the environment, then the defaults; validated."""

import dataclasses
import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Mapping
from typing import Any

from asok_trace.core import names
from asok_trace.core.errors import ConfigError
from asok_trace.core.settings import LEVELS, MODES, Settings, default, set_default

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2


def resolve(arguments: Mapping[str, Any]) -> Settings:
    """Return the settings for ``arguments``, completed from the environment.

    Raises:
        ConfigError: a name that is no setting, or a value that cannot be used.
    """
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in arguments.keys() - known:
        raise ConfigError(
            f"{name}={arguments[name]!r} is not a setting. Use one of {', '.join(sorted(known))}."
        )
    values = _process_wide()
    for name, value in arguments.items():
        values[name] = _READERS[name](value, f"{name}={value!r}")
    return Settings(**values)


def _process_wide() -> dict[str, Any]:
    """The settings that hold where nothing else is said: the environment's, or those that
    `setup` was given on top of it."""
    applied = default()
    if applied == Settings():
        return from_environment()
    return {field.name: getattr(applied, field.name) for field in dataclasses.fields(Settings)}


def from_environment() -> dict[str, Any]:
    """Return the settings that ``ASOK_TRACE_...`` variables give."""
    values: dict[str, Any] = {}
    for name, read in _READERS.items():
        variable = names.ENVIRONMENT_PREFIX + name.upper()
        value = os.environ.get(variable)
        if value:
            values[name] = read(value, f'{variable}="{value}"')
    return values


def apply_environment() -> None:
    """Make the environment's settings the process-wide ones."""
    set_default(Settings(**from_environment()))


def _flag(value: object, given: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise ConfigError(f"{given} is neither on nor off. Use True or False; 1 or 0 as a variable.")


def _header(value: object, given: str) -> str:
    if isinstance(value, str) and _TOKEN.fullmatch(value):
        return value
    raise ConfigError(f'{given} is not a header name. Use one such as "X-Request-ID".')


def _text(value: object, given: str) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ConfigError(f'{given} is not a name. Use some text, such as "shop".')


def _patterns(value: object, given: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(item.strip() for item in value if item.strip())
    raise ConfigError(f'{given} is not a list of paths. Use some like "/health", "/static/*".')


def _resolver(value: object, given: str) -> Callable[[Any], object] | None:
    if isinstance(value, str):
        try:
            value = pkgutil.resolve_name(value)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f'{given} cannot be imported: {error}. Use "package.module:function".'
            ) from error
    if inspect.iscoroutinefunction(value):
        raise ConfigError(
            f"{given} is a coroutine function, which a log line cannot await. Use a function that "
            f"returns what is known already."
        )
    if value is None or callable(value):
        return value
    raise ConfigError(
        f"{given} cannot be called. Use a function of the request that returns the user's "
        f"primary key, or None."
    )


def _mode(value: object, given: str) -> str | None:
    if value is None or value in MODES:
        return value
    raise ConfigError(f"{given} is not a mode. Use one of {MODES}.")


def _level(value: object, given: str) -> str:
    if isinstance(value, str) and value in LEVELS:
        return value
    raise ConfigError(f"{given} is not a level. Use one of {LEVELS}.")


def _optional_flag(value: object, given: str) -> bool | None:
    return None if value is None else _flag(value, given)


def _seconds(value: object, given: str) -> float:
    try:
        seconds = float(value)  # type: ignore[arg-type]  # tried
    except (TypeError, ValueError):
        seconds = -1.0
    if isinstance(value, bool) or not 0 <= seconds < float("inf"):
        raise ConfigError(f"{given} is not a number of seconds. Use one such as 5.")
    return seconds


def _keys(value: object, given: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(item.strip() for item in value if item.strip())
    raise ConfigError(
        f'{given} is not a list of keys. Use some like "lost:billing.jobs.charge", "late:views.*".'
    )


_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "isolate": _flag,
    "user": _resolver,
    "access_log": _flag,
    "request_id_header": _header,
    "trust_incoming": _flag,
    "exclude": _patterns,
    "log_events": _flag,
    "threads": _mode,
    "cron": _flag,
    "service": _text,
    "level": _level,
    "errors": _optional_flag,
    "ignore": _keys,
    "grace": _seconds,
}
