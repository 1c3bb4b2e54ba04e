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
"""The class name of the exception that escaped the application, or became a 5xx page of it."""

# Log fields of jobs from a queue, and of what runs by the clock.
QUEUE: Final = "queue"
ATTEMPT: Final = "attempt"
RUN: Final = "run"
"""Which run of a scheduled function this is, counted in its process."""

# Log fields of lines inside a trace, and of WebSocket messages.
TRACE_ID: Final = "trace_id"
SPAN_ID: Final = "span_id"
CONNECTION_ID: Final = "connection_id"

# A log field of lines written after the response of their request had ended.
LATE_MS: Final = "late_ms"

# Log fields of the lines that tell a finding: its slug, its key, and where it showed.
FINDING: Final = "finding"
FINDING_KEY: Final = "finding_key"
FINDING_CALLSITE: Final = "finding_callsite"

STAMPED: Final = (REQUEST_ID, IP, USER, PATH)
"""What every line of a request carries, as far as it is known."""

RESERVED: Final = frozenset({REQUEST_ID, TRACE_ID, SPAN_ID})
"""What ``bind()`` refuses: these must agree with the response header and the trace."""

# Event and logger names.
REQUEST_EVENT: Final = "request"
LOGGER: Final = "asok_trace"
REQUEST_LOGGER: Final = "asok_trace.request"

# Span attributes: a field's name on a span, where it differs. OpenTelemetry's semantic
# conventions have names for all but the request id.
ATTRIBUTES: Final = {
    REQUEST_ID: "request.id",
    IP: "client.address",
    USER: "user.id",
    PATH: "url.path",
    TASK: "asok_trace.task",
    CONNECTION_ID: "asok_trace.connection.id",
    QUEUE: "messaging.destination.name",
    ATTEMPT: "asok_trace.job.attempt",
    RUN: "asok_trace.cron.run",
    LATE_MS: "asok_trace.late_ms",
}
ATTRIBUTE_REQUEST_ID: Final = ATTRIBUTES[REQUEST_ID]
ATTRIBUTE_USER: Final = ATTRIBUTES[USER]

ATTRIBUTE_JOB_ID: Final = "messaging.message.id"
ATTRIBUTE_JOB_STATUS: Final = "asok_trace.job.status"

ATTRIBUTE_ASOK_TRACE: Final = "asok.trace_id"
"""The id of the trace that asok's own tracing took a span for, which it may tell the client."""

# What was found: the slug of a finding on the span that it affects, its name as an event there,
# and the metrics.
ATTRIBUTE_FINDING: Final = "asok_trace.finding"
ATTRIBUTE_FINDING_KIND: Final = "asok_trace.finding.kind"
ATTRIBUTE_FINDING_KEY: Final = "asok_trace.finding.key"
ATTRIBUTE_FINDING_CALLSITE: Final = "asok_trace.finding.callsite"
ATTRIBUTE_FINDING_MESSAGE: Final = "asok_trace.finding.message"
FINDING_EVENT: Final = "asok_trace.finding"
ATTRIBUTE_WORK_KIND: Final = "asok_trace.kind"
ATTRIBUTE_SIGNAL: Final = "asok_trace.signal"
METRIC_ACTIVE_REQUESTS: Final = "http.server.active_requests"
METRIC_JOB_DURATION: Final = "asok_trace.job.duration"
METRIC_EXPORT_DROPPED: Final = "asok_trace.export.dropped"
METRIC_FINDINGS: Final = "asok_trace.findings"
METRIC_LATE_LINES: Final = "asok_trace.late_lines"

# The instrumentation scope of our spans.
TRACER: Final = "asok_trace"

# Methods that are told apart; others may be anything that a client makes up.
# https://www.rfc-editor.org/rfc/rfc9110#section-9, RFC 5789, and QUERY.
METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY"}
)

# Headers.
REQUEST_ID_HEADER: Final = "X-Request-ID"

# Where a request carries its scope: the WSGI environ and the ASGI scope.
CARRIED: Final = "asok_trace.scope"

# What crosses a process in a carrier, beside the W3C's traceparent and tracestate.
CARRIER: Final = {
    REQUEST_ID: "asok-trace-request-id",
    IP: "asok-trace-ip",
    USER: "asok-trace-user",
    PATH: "asok-trace-path",
}
JOB_CARRIER: Final = "asok_trace"
"""The key of a framework's own job that holds its carrier."""

# OpenTelemetry's own variable, and our entry point that it may name.
OTEL_CONTEXT: Final = "OTEL_PYTHON_CONTEXT"
STRICT_CONTEXT: Final = "asok_trace_strict"

# Environment variables are this prefix and the upper-case name of a setting.
ENVIRONMENT_PREFIX: Final = "ASOK_TRACE_"
