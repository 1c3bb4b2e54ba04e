"""`to_carrier()` and `from_carrier()`: what crosses a process, and what is believed of it."""

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

import asok_trace
from asok_trace.core import text
from asok_trace.core.scope import ACTIVE
from asok_trace.propagate import carrier as carriers
from asok_trace.propagate.carrier import received
from tests.programs import run

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
CARRIER = {
    "traceparent": TRACEPARENT,
    "tracestate": "vendor=1",
    "asok-trace-request-id": "from-the-proxy",
    "asok-trace-ip": "203.0.113.7",
    "asok-trace-user": "7",
    "asok-trace-path": "/checkout",
}
MADE = re.compile("[0-9a-f]{32}")

Traces = InMemorySpanExporter


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """What a tracer provider, global for one test, has ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=asok_trace.StampingSampler(ParentBased(ALWAYS_ON)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    assert not trace.get_current_span().get_span_context().is_valid, "a span was left attached"


def only(traces: Traces) -> ReadableSpan:
    """The one span that has ended."""
    [span] = traces.get_finished_spans()
    return span


def stamped(carrier: Any) -> dict[str, Any]:
    """The fields of a line logged by a job that came with ``carrier``."""
    with asok_trace.from_carrier(carrier, "charge"):
        event = asok_trace.inject(None, "info", {"event": "charged"})
    assert isinstance(event, dict)
    return dict(event)


class TestToCarrier:
    def test_outside_any_request_it_is_empty(self) -> None:
        """There is nothing to say, and nothing is made up."""
        assert asok_trace.to_carrier() == {}

    def test_it_is_a_flat_mapping_of_text(self, traces: Traces) -> None:
        """Id, user and the current span's ids, under names of their own; JSON can hold it."""
        with asok_trace.scope("checkout") as scope:
            asok_trace.bind(user=7, tenant="a")
            with trace.get_tracer("shop").start_as_current_span("order") as span:
                carrier = asok_trace.to_carrier()
        ids = span.get_span_context()
        assert carrier == {
            "traceparent": f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}",
            "asok-trace-request-id": scope.request_id,
            "asok-trace-user": "7",
        }
        assert json.loads(json.dumps(carrier)) == carrier

    def test_a_span_without_a_request_is_carried(self, traces: Traces) -> None:
        """The trace goes on even where there is no request id."""
        with trace.get_tracer("shop").start_as_current_span("order"):
            assert list(asok_trace.to_carrier()) == ["traceparent"]

    def test_what_was_received_is_sent_on(self, traces: Traces) -> None:
        """A job queued from a job carries all of the first request, and the trace's state."""
        with asok_trace.from_carrier(CARRIER, "first"):
            onward = asok_trace.to_carrier()
        assert onward.pop("traceparent").startswith(f"00-{TRACE}-")
        assert onward == {key: value for key, value in CARRIER.items() if key != "traceparent"}

    def test_a_fault_of_ours_sends_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever queues a job never sees an error of ours."""

        def broken() -> None:
            raise LookupError

        monkeypatch.setattr(carriers.lookup, "here", broken)
        assert asok_trace.to_carrier() == {}


class TestFromCarrier:
    def test_lines_carry_the_request(self) -> None:
        """Its id, ip, user and path, and the name of the work."""
        assert stamped(CARRIER) == {
            "request_id": "from-the-proxy",
            "ip": "203.0.113.7",
            "user": "7",
            "path": "/checkout",
            "task": "charge",
            "event": "charged",
        }

    def test_it_is_a_job_that_opens_and_closes(self) -> None:
        """current() is the scope inside, and what was there before is there after."""
        with asok_trace.scope("consumer") as consumer:
            with asok_trace.from_carrier(CARRIER, "charge", shard=3) as scope:
                assert asok_trace.current() is scope
                assert (scope.kind, scope.name, scope.open) == ("job", "charge", True)
                assert scope.fields["shard"] == "3"
                assert (scope.request_id, scope.ip, scope.user, scope.path) == (
                    *("from-the-proxy", "203.0.113.7", "7", "/checkout"),
                )
            assert not scope.open
            assert asok_trace.current() is consumer
        assert ACTIVE.get() is None

    def test_it_closes_when_the_work_fails(self) -> None:
        """The exception goes through as it is."""
        error = LookupError("no such order")
        with pytest.raises(LookupError) as caught, asok_trace.from_carrier(CARRIER, "x") as scope:
            raise error
        assert caught.value is error
        assert not scope.open
        assert ACTIVE.get() is None

    def test_one_object_may_be_entered_again(self) -> None:
        """Each time it is a unit of its own; the inner one ends first."""
        again = asok_trace.from_carrier(CARRIER, "x")
        with again as first, again as second:
            assert first is not second
            assert asok_trace.current() is second
        assert not first.open
        assert not second.open

    def test_reserved_fields_are_refused(self) -> None:
        """The request id comes from the carrier or is made, and from nowhere else."""
        with pytest.raises(asok_trace.ConfigError, match="request_id='x' cannot be bound"):
            asok_trace.from_carrier(CARRIER, "x", request_id="x")

    def test_keys_of_others_do_no_harm(self) -> None:
        """Headers of a message hold what they like beside ours."""
        others: dict[Any, Any] = {"content-type": b"x", 7: None, "request_id": "no", (): []}
        assert stamped({**others, **CARRIER}) == stamped(CARRIER)

    @pytest.mark.parametrize("nothing", [None, {}, [], "text", b"bytes", 7, object(), [("a", 1)]])
    def test_without_a_carrier_the_work_has_an_id_of_its_own(self, nothing: Any) -> None:
        """None, an empty mapping and what is no mapping open a unit of work like scope()."""
        event = stamped(nothing)
        assert MADE.fullmatch(event.pop("request_id"))
        assert event == {"task": "charge", "event": "charged"}

    @pytest.mark.parametrize("bad", ["", "a b", "a\nb", "x" * 129, "é", 7, None, b"abc", ["a"]])
    def test_a_bad_id_is_replaced(self, bad: Any) -> None:
        """An id is printed everywhere: what could end a line, or is too long, is not let in."""
        event = stamped({**CARRIER, "asok-trace-request-id": bad})
        assert MADE.fullmatch(event["request_id"])
        assert event["path"] == "/checkout"

    @pytest.mark.parametrize("bad", ["", "home", "<script>", "1.2.3.4\n", "1" * 5000, "\0", 7, {}])
    def test_a_bad_ip_is_dropped(self, bad: Any) -> None:
        """Only what is an address is one."""
        assert "ip" not in stamped({**CARRIER, "asok-trace-ip": bad})

    def test_text_is_bounded_and_of_one_line(self) -> None:
        """User and path are cut and escaped, like those of a request."""
        huge = "a\n\x1b[31m\u202e\ud800" * 1_000_000
        event = stamped({**CARRIER, "asok-trace-user": huge, "asok-trace-path": huge})
        assert len(event["user"]) == text.USER_LIMIT
        assert len(event["path"]) == text.PATH_LIMIT
        assert (event["user"] + event["path"]).isprintable()

    def test_a_mapping_that_raises_is_like_none(self, caplog: pytest.LogCaptureFixture) -> None:
        """The work runs under an id of its own; it is reported once, and the next carrier is
        read."""

        class Broken(Mapping[str, str]):
            def __getitem__(self, key: str) -> str:
                raise OSError("connection lost")

            def __iter__(self) -> Iterator[str]:
                raise OSError("connection lost")

            def __len__(self) -> int:
                return 1

        for _ in range(2):
            assert MADE.fullmatch(stamped(Broken())["request_id"])
        assert [record.name for record in caplog.records] == ["asok_trace"]
        assert "reading a carrier" in caplog.text
        assert stamped(CARRIER)["request_id"] == "from-the-proxy"


class TestSpans:
    def test_it_is_a_consumer_span_in_the_same_trace(self, traces: Traces) -> None:
        """A child of the span that sent it, with the request's facts as attributes."""
        with trace.get_tracer("shop").start_as_current_span("consumer loop"):
            with asok_trace.from_carrier(CARRIER, "charge", shard=3):
                line = asok_trace.inject(None, "info", {})
                job_span = trace.get_current_span().get_span_context()
            assert trace.get_current_span().get_span_context() != job_span
        assert isinstance(line, dict)
        span, loop = traces.get_finished_spans()
        assert (span.name, span.kind) == ("charge", SpanKind.CONSUMER)
        assert f"{span.context.trace_id:032x}" == TRACE != f"{loop.context.trace_id:032x}"
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
        assert span.parent.is_remote
        assert span.context.trace_state.to_header() == "vendor=1"
        assert dict(span.attributes or {}) == {
            "request.id": "from-the-proxy",
            "client.address": "203.0.113.7",
            "user.id": "7",
            "url.path": "/checkout",
            "asok_trace.task": "charge",
            "shard": "3",
        }
        assert (line["trace_id"], line["span_id"]) == (TRACE, f"{job_span.span_id:016x}")

    def test_it_fails_with_the_exception(self, traces: Traces) -> None:
        """The span has its type and an event of it."""
        with pytest.raises(LookupError), asok_trace.from_carrier(CARRIER, "charge"):
            raise LookupError("no such order")
        span = only(traces)
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "LookupError"
        assert [event.name for event in span.events] == ["exception"]

    def test_without_a_carrier_the_trace_has_the_id(self, traces: Traces) -> None:
        """The id that was made and the trace's are one, as for a request."""
        with asok_trace.from_carrier(None, "charge") as scope:
            pass
        span = only(traces)
        assert span.parent is None
        assert f"{span.context.trace_id:032x}" == scope.request_id

    @pytest.mark.parametrize(
        "bad", ["", "garbage", f"00-{'0' * 32}-{'0' * 16}-01", f"ff-{TRACE}", 7, "0" * 100_000]
    )
    def test_an_invalid_traceparent_is_ignored(self, traces: Traces, bad: Any) -> None:
        """The work is a trace of its own, with the id that the carrier brought."""
        with asok_trace.from_carrier({**CARRIER, "traceparent": bad}, "charge") as scope:
            pass
        span = only(traces)
        assert span.parent is None
        assert scope.request_id == "from-the-proxy"
        assert (span.attributes or {})["request.id"] == "from-the-proxy"

    def test_a_huge_tracestate_is_not_passed_on(self, traces: Traces) -> None:
        """Beyond the 32 members that the W3C allows it is dropped; the trace goes on."""
        with asok_trace.from_carrier({**CARRIER, "tracestate": "a=b," * 100_000}, "charge"):
            assert "tracestate" not in asok_trace.to_carrier()
        assert f"{only(traces).context.trace_id:032x}" == TRACE


_PROVIDER = TracerProvider()
_TEXT = st.one_of(st.text(), st.text(st.characters(categories=["Cc", "Cs", "Zl", "Cf"])))
_ANYTHING = st.recursive(
    st.one_of(
        *(st.none(), st.integers(), st.floats(), st.binary(), _TEXT, st.sampled_from([*CARRIER])),
        *(st.sampled_from([*CARRIER.values()]), _TEXT.map(lambda value: value * 2000)),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
_KEYS = st.one_of(
    st.sampled_from([*CARRIER]), st.text(), st.integers(), st.binary(), st.none(), st.booleans()
)


class TestHostile:
    @settings(max_examples=100, deadline=None)
    @given(st.dictionaries(_KEYS, _ANYTHING))
    def test_whatever_is_in_it_every_field_is_fit_to_print(self, hostile: dict[Any, Any]) -> None:
        """Nothing raises; the id and the ip are valid, and every field is bounded and of one
        line."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trace, "_TRACER_PROVIDER", _PROVIDER)
            event = stamped(hostile)
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", event["request_id"])
        if "ip" in event:
            ipaddress.ip_address(event["ip"])
        assert len(event.get("user", "")) <= text.USER_LIMIT
        assert len(event.get("path", "")) <= text.PATH_LIMIT
        assert all(value.isprintable() for value in event.values())
        assert event.keys() <= {
            *("request_id", "ip", "user", "path", "task", "event", "trace_id", "span_id"),
        }
        assert ACTIVE.get() is None

    @settings(max_examples=100, deadline=None)
    @given(_ANYTHING)
    def test_whatever_it_is_a_unit_is_opened(self, hostile: Any) -> None:
        """Also where it is no mapping at all."""
        work = received(hostile, "charge", {})
        with work as scope:
            assert asok_trace.current() is scope
        assert not scope.open


CONSUMER = """
import json, os, structlog, asok_trace
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
structlog.configure(processors=[asok_trace.inject])
carrier = json.loads(os.environ["CARRIER"])
with asok_trace.from_carrier(carrier, "charge", shard=3):
    structlog.get_logger().info("charged", amount=10)
structlog.get_logger().info("waiting")
"""


def test_another_process_goes_on_with_the_request(traces: Traces) -> None:
    """A real one: its line has this one's id and trace, and it has none when the job is over."""
    with asok_trace.scope("checkout") as scope:
        asok_trace.bind(user=7)
        with trace.get_tracer("shop").start_as_current_span("order") as span:
            printed = run(CONSUMER, CARRIER=json.dumps(asok_trace.to_carrier()))
    charged, waiting = map(json.loads, printed.splitlines())
    assert charged.pop("span_id")
    assert charged.pop("timestamp")
    assert charged == {
        "request_id": scope.request_id,
        "trace_id": f"{span.get_span_context().trace_id:032x}",
        "user": "7",
        "task": "charge",
        "shard": "3",
        "amount": 10,
        "event": "charged",
        "level": "info",
    }
    assert "request_id" not in waiting
    assert structlog.is_configured() is False
