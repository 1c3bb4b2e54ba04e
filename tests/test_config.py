"""Settings come from arguments, then the environment, then the defaults; a bad one is explained."""

import json
import os
import subprocess
import sys

import pytest

from asok_trace import ConfigError, config
from asok_trace.core import settings
from asok_trace.core.settings import Settings


async def coroutine(request: object) -> str:
    """No resolver."""
    return "x"


def test_defaults() -> None:
    """With nothing given, the settings are the documented ones."""
    assert config.resolve({}) == Settings(
        isolate=True,
        user=None,
        access_log=True,
        request_id_header="X-Request-ID",
        trust_incoming=True,
        exclude=(),
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("isolate", "0", False),
        ("access_log", "off", False),
        ("trust_incoming", "False", False),
        ("trust_incoming", "yes", True),
        ("request_id_header", "X-Correlation-ID", "X-Correlation-ID"),
        ("exclude", "/health, /static/*,", ("/health", "/static/*")),
        ("user", "os.path:basename", os.path.basename),
    ],
)
def test_each_setting_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    """ASOK_TRACE_<NAME> sets it; the argument of the same name is stronger."""
    monkeypatch.setenv(f"ASOK_TRACE_{name.upper()}", text)
    assert getattr(config.resolve({}), name) == value
    default = getattr(Settings(), name)
    assert getattr(config.resolve({name: default}), name) == default


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ASOK_TRACE_ISOLATE=`` in a compose file leaves the default."""
    monkeypatch.setenv("ASOK_TRACE_ISOLATE", "")
    assert config.resolve({}).isolate is True


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"isolate": "maybe"}, "isolate='maybe' is neither on nor off. Use True or False"),
        ({"isolate": None}, "isolate=None is neither on nor off"),
        ({"request_id_header": "X Request"}, "is not a header name. Use one such as"),
        ({"request_id_header": b"X"}, "is not a header name"),
        ({"exclude": 5}, "exclude=5 is not a list of paths. Use some like"),
        ({"user": coroutine}, "is a coroutine function, which a log line cannot await"),
        ({"user": 5}, "user=5 cannot be called. Use a function of the request"),
        ({"user": "no.such:thing"}, 'cannot be imported: .*Use "package.module:function"'),
        ({"levle": "x"}, "levle='x' is not a setting. Use one of access_log, cron, errors, "),
    ],
)
def test_a_bad_setting_says_value_reason_and_remedy(given: dict[str, object], text: str) -> None:
    """The error needs no documentation next to it."""
    with pytest.raises(ConfigError, match=text):
        config.resolve(given)


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable, so that it can be found."""
    monkeypatch.setenv("ASOK_TRACE_ISOLATE", "maybe")
    with pytest.raises(ConfigError, match='ASOK_TRACE_ISOLATE="maybe" is neither on nor off'):
        config.resolve({})


def test_a_header_name_that_could_split_a_response_is_refused() -> None:
    """A newline in the header name is no header name."""
    with pytest.raises(ConfigError):
        config.resolve({"request_id_header": "X-Id\r\nSet-Cookie"})


def test_the_environment_holds_without_instrument(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare one-liner follows the environment too: the first touched name reads it."""
    program = (
        "import asok_trace, json; asok_trace.inject;"
        "from asok_trace.core import settings;"
        "print(json.dumps(settings.default().trust_incoming))"
    )
    environment = {**os.environ, "ASOK_TRACE_TRUST_INCOMING": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) is False


def test_the_process_wide_settings_can_be_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """apply_environment() makes the environment's settings everyone's default."""
    monkeypatch.setenv("ASOK_TRACE_TRUST_INCOMING", "0")
    config.apply_environment()
    assert settings.default() == Settings(trust_incoming=False)


def test_what_setup_was_given_holds_for_instrument(monkeypatch: pytest.MonkeyPatch) -> None:
    """setup(...) early and instrument(app) later: the first call's settings are the defaults."""
    monkeypatch.setenv("ASOK_TRACE_ISOLATE", "0")
    settings.set_default(config.resolve({"log_events": True}))
    resolved = config.resolve({"access_log": False})
    assert (resolved.log_events, resolved.access_log, resolved.isolate) == (True, False, False)
