"""OpenTelemetry's propagator for the request id header of outgoing calls.

Named by the entry point ``asok_trace``, which ``OTEL_PROPAGATORS`` switches on. The API loads it
while it is being imported itself: nothing here may import what is half imported then.
"""

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from asok_trace.core import settings
from asok_trace.core.errors import Piece
from asok_trace.frameworks import lookup

sending = Piece("sending the request id to another service")


class RequestIdPropagator(TextMapPropagator):
    """Puts the request's id in the ``X-Request-ID`` header of outgoing calls.

    ``OTEL_PROPAGATORS=tracecontext,baggage,asok_trace``. Never on its own account: whoever is
    called learns the id. Incoming ids are read by the gateways, which validate them.
    """

    def extract(
        self,
        carrier: CarrierT,  # noqa: ARG002  # the interface
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,  # noqa: ARG002
    ) -> Context:
        """Return ``context`` as it is."""
        return Context() if context is None else context

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,  # noqa: ARG002  # the scope has a variable of its own
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Put the id of this context's request into ``carrier``."""
        if not sending.working:
            return
        try:
            scope = lookup.here()
            if scope is not None:
                setter.set(carrier, settings.default().request_id_header, scope.request_id)
        except Exception as error:
            sending.failed(error)

    @property
    def fields(self) -> set[str]:
        """The header that `inject` sets."""
        return {settings.default().request_id_header}
