"""The command line: ``asok-trace doctor MODULE:APP``, or ``python -m asok_trace doctor ...``."""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from asok_trace.tools.doctor import Asked, Report

CLEAN: Final = 0
FOUND: Final = 1
UNUSABLE: Final = 2
"""The command was wrong, or the application could not be asked anything."""

_LINGER_SECONDS: Final = 2.0
"""How long threads of the application may go on before they hold up the end of the command."""

_CAUSES: Final = {
    "lost": "a request started it without its context",
    "late": "the request was over by then",
    "bleed": "left behind for the next request",
    "foreign": "closed in another context than it was opened in",
    "unclosed": "dropped while it was open",
    "retained": "the request is kept alive",
    "outside": "no request behind it, which need not be a mistake",
}

_DOCTOR: Final = """\
Import the application, send a GET to each of its pages through the framework's test client, and
report what loses or leaks the context of a request, with the cause and the fix.

The GET handlers run for real, with whatever they do to databases and other services: point the
application at a test environment, and leave out with --exclude what must not run. Nothing but GET
is sent, no redirect followed, no cookie kept. OpenTelemetry exporters named by the environment are
off meanwhile.
"""
_STATUS: Final = "Exit status: 0 nothing found, 1 findings, 2 the command could not be carried out."


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command and return its exit status: the last thing that a process does. What
    the application prints, now and later, goes to standard error.

    Args:
        arguments: those after the program's name; None takes the process's own.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    # Not before: --help needs none of it.
    from asok_trace.tools import doctor, loading

    request = doctor.Request(
        target=given.target,
        factory=given.factory,
        interface=given.interface,
        examples=dict(given.example),
        exclude=given.exclude,
        paths=given.path,
        timeout=given.timeout,
        grace=given.grace,
        outside=given.outside,
    )
    out = _own_stdout()
    try:
        report = doctor.examine(request)
    except loading.Unusable as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return _end(UNUSABLE)
    except KeyboardInterrupt:
        return _end(130)
    told = json.dumps(_document(report), indent=2) if given.json else _text(report)
    try:
        print(told, file=out, flush=True)
    except BrokenPipeError:  # whoever reads it has seen enough
        os.dup2(sys.stderr.fileno(), out.fileno())
    if report.counted:
        return _end(FOUND)
    return _end(CLEAN if report.ok else UNUSABLE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asok-trace", description="Find out which request a line belongs to, and why not."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    doctor = commands.add_parser(
        "doctor",
        help="request an application's own pages and report what loses or leaks their context",
        description=_DOCTOR,
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = doctor.add_argument
    add("target", metavar="MODULE:APP", help="as your server is given it: shop.wsgi:app")
    add("--factory", action="store_true", help="APP is a function that makes the application")
    add(
        "--example",
        action="append",
        default=[],
        type=_example,
        metavar="NAME=VALUE",
        help="what to put for a parameter of routes, which are skipped without",
    )
    add(
        "--path",
        action="append",
        default=[],
        type=_path,
        help="request this, too: /search?q=shoes",
    )
    add(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out the routes and paths that match: '/admin/*'",
    )
    add(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="for each answer (%(default)g)",
    )
    add(
        "--grace",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="at most, for the work that goes on after the last answer (%(default)g)",
    )
    add(
        "--outside",
        action="store_true",
        help="count what runs with no request behind it as a mistake, too",
    )
    add("--interface", choices=("wsgi", "asgi"), help="of a callable of which it cannot be told")
    add("--json", action="store_true", help="for machines")
    return parser


def _example(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{given!r} is no example. Say NAME=VALUE: user_id=7")
    return name, value


def _path(given: str) -> str:
    if not given.startswith("/") or given.startswith("//"):
        raise argparse.ArgumentTypeError(
            f"{given!r} is no path of the application. Say /search?q=x"
        )
    return given


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{given!r} is no number of seconds. Say one such as 2.5")
    return seconds


def _own_stdout() -> TextIO:
    """Return standard output as it was given; what else is written there, by whomever, goes to
    standard error from now on."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return own


def _end(status: int) -> int:
    """Return ``status``; the process ends with it even if the application's threads go on."""

    def end() -> None:
        time.sleep(_LINGER_SECONDS)
        sys.stderr.flush()
        os._exit(status)

    threading.Thread(target=end, daemon=True).start()
    return status


def _document(report: "Report") -> dict[str, Any]:
    return {
        "app": report.app,
        "requested": [asdict(asked) for asked in report.requested],
        "skipped": [asdict(skipped) for skipped in report.skipped],
        "findings": [asdict(found) for found in report.findings],
        "notes": report.notes,
        "faults": report.faults,
        "ok": report.ok,
    }


def _text(report: "Report") -> str:
    parts = ["\n".join(_answer(asked) for asked in report.requested)]
    if report.skipped:
        width = max(len(skipped.route) for skipped in report.skipped)
        parts.append(
            "\n".join(
                ["skipped:"] + [f"  {one.route:<{width}}  {one.reason}" for one in report.skipped]
            )
        )
    for slug, cause in _CAUSES.items():
        found = [finding for finding in report.findings if finding.slug == slug]
        if found:
            parts.append("\n\n".join([f"== {slug}: {cause} ==", *map(str, found)]))
    parts += report.notes
    parts += [
        f"asok_trace itself failed at {fault}, as said on standard error: what it would have found "
        f"is missing here."
        for fault in report.faults
    ]
    parts.append(_verdict(report))
    return "\n\n".join(part for part in parts if part)


def _answer(asked: "Asked") -> str:
    line = f"{asked.status or '---'}  GET {asked.path}"
    if asked.route != asked.path:
        line += f"  ({asked.route})"
    return f"{line}  {asked.error}" if asked.error else line


def _verdict(report: "Report") -> str:
    asked = _number(len(report.requested), "request")
    if not report.requested:
        return "Nothing was requested: give examples for parameters, or a --path."
    silent = sum(1 for one in report.requested if one.status is None)
    asked += f" ({silent} without an answer)" if silent else ""
    return f"{asked}, {_number(len(report.counted), 'finding')}."


def _number(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
