"""Every wire name, written once: what other programs see and depend on."""

from typing import Final

# Log fields, stamped on each line of a request.
REQUEST_ID: Final = "request_id"
IP: Final = "ip"
USER: Final = "user"
PATH: Final = "path"
TASK: Final = "task"
"""The name of a unit of work that is not a request of its own: ``scope("nightly")``."""

# Log fields of the canonical line alone.
METHOD: Final = "method"
ROUTE: Final = "route"
STATUS: Final = "status"
DURATION_MS: Final = "duration_ms"
ERROR: Final = "error"
"""The class name of the exception that escaped the application."""

STAMPED: Final = (REQUEST_ID, IP, USER, PATH)
"""What every line of a request carries, as far as it is known."""

RESERVED: Final = frozenset({REQUEST_ID, "trace_id", "span_id"})
"""What ``bind()`` refuses: these must agree with the response header and the trace."""

# Event and logger names.
REQUEST_EVENT: Final = "request"
LOGGER: Final = "asok_trace"
REQUEST_LOGGER: Final = "asok_trace.request"

# Headers.
REQUEST_ID_HEADER: Final = "X-Request-ID"

# Where a request carries its scope: the WSGI environ and the ASGI scope.
CARRIED: Final = "asok_trace.scope"

# Environment variables are this prefix and the upper-case name of a setting.
ENVIRONMENT_PREFIX: Final = "ASOK_TRACE_"
