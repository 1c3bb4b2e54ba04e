"""The names that asok_trace's metrics and fields have in Prometheus and in Loki.

Prometheus's own rules make them of OpenTelemetry's: dots become underscores, the unit and
``_total`` are appended. They are the same from `opentelemetry-exporter-prometheus` and from the
Collector; tests/grafana holds them against both.
"""

from typing import Final

# Metrics.
REQUESTS: Final = "http_server_request_duration_seconds_count"
REQUEST_BUCKETS: Final = "http_server_request_duration_seconds_bucket"
REQUEST_SECONDS: Final = "http_server_request_duration_seconds_sum"
ACTIVE: Final = "http_server_active_requests"
JOBS: Final = "asok_trace_job_duration_seconds_count"
JOB_BUCKETS: Final = "asok_trace_job_duration_seconds_bucket"
FINDINGS: Final = "asok_trace_findings_total"
LATE_LINES: Final = "asok_trace_late_lines_total"
EXPORT_DROPPED: Final = "asok_trace_export_dropped_total"

METRICS: Final = (
    REQUESTS,
    REQUEST_BUCKETS,
    REQUEST_SECONDS,
    ACTIVE,
    JOBS,
    JOB_BUCKETS,
    FINDINGS,
    LATE_LINES,
    EXPORT_DROPPED,
)

# Labels of metrics.
SERVICE: Final = "job"
"""OpenTelemetry's ``service.name``; for a scraped endpoint, the name of Prometheus's scrape job."""
ROUTE: Final = "http_route"
METHOD: Final = "http_request_method"
STATUS: Final = "http_response_status_code"
ERROR: Final = "error_type"
FINDING: Final = "asok_trace_finding"
WORK_KIND: Final = "asok_trace_kind"
WORK_NAME: Final = "asok_trace_task"
SIGNAL: Final = "asok_trace_signal"
"""Of what was not exported: ``traces`` or ``logs``."""

LABELS: Final = (SERVICE, ROUTE, METHOD, STATUS, ERROR, FINDING, WORK_KIND, WORK_NAME, SIGNAL)

# In Loki. The service is a label; all else is structured metadata.
LOKI_SERVICE: Final = "service_name"
LOGGER: Final = "scope_name"
"""What Loki calls OpenTelemetry's instrumentation scope: for a log line, its logger."""

# The data sources of provisioning/.
PROMETHEUS: Final = "prometheus"
LOKI: Final = "loki"
JAEGER: Final = "jaeger"
