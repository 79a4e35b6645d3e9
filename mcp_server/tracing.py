"""Spans of OpenTelemetry for runs and new contexts, beneath those that the SDK opens for each call.

The SDK takes a client's `traceparent` from a request's `_meta`, so that what is here joins the client's trace. A span
is made when its run has ended, with the times that it had: nothing is kept open meanwhile. It never holds code or
output.

Where the process has a tracer provider (`opentelemetry-instrument`), that one is used. Else `--traces` sets one up,
which exports as the standard `OTEL_…` variables say; that needs the extra `traces`.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import Status, StatusCode

from mcp_server import __version__
from mcp_server.errors import CallerError, CodeInterpreterError, LimitReached, SetupFailed
from mcp_server.model import Conversation, Outcome, RunCall
from mcp_server.model import Status as RunStatus
from mcp_server.service.observer import RunKey, ServiceObserver

SCOPE = "mcp-code-interpreter"

HANDLE_CHARS = 12
"""Of a context's handle: knowing all of it is the right to use it."""

_FINE = frozenset((RunStatus.OK, RunStatus.INTERRUPTED, RunStatus.CANCELLED))


@dataclass(slots=True)
class _Asked:
    """A run that was asked for, in a trace. Times in nanoseconds of the clock; ``began_ns`` 0: not yet."""

    context: Context
    queued_ns: int
    began_ns: int = 0
    output_bytes: int = 0


class Tracing(ServiceObserver):
    """Makes spans. `provider` is the process's own unless given."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(SCOPE, __version__, provider)
        self._asked: dict[RunKey, _Asked] = {}

    def run_queued(self, run: RunKey, call: RunCall, *, streamed: bool) -> None:  # noqa: ARG002
        """Runs end in another task than they are asked for in: their place in the trace is known here alone."""
        self._asked[run] = _Asked(get_current(), time.time_ns())

    def run_began(self, run: RunKey) -> None:
        self._asked[run].began_ns = time.time_ns()

    def run_printed(self, run: RunKey, output_bytes: int) -> None:
        self._asked[run].output_bytes = output_bytes

    def run_failed(self, run: RunKey, error: CodeInterpreterError) -> None:  # noqa: ARG002
        """The SDK's span of the call tells of it."""
        self._asked.pop(run, None)

    def run_ended(self, run: RunKey, outcome: Outcome) -> None:
        asked = self._asked.pop(run)
        began_ns = asked.began_ns or time.time_ns()
        span = self._tracer.start_span(
            "run",
            context=asked.context,
            start_time=began_ns,
            attributes={
                "code_interpreter.context": run.context_id[:HANDLE_CHARS],
                "code_interpreter.run": run.number,
                "code_interpreter.status": outcome.status.value,
                "code_interpreter.variables": outcome.state.value,
                "code_interpreter.queued_s": (began_ns - asked.queued_ns) / 1e9,
                "code_interpreter.output_bytes": asked.output_bytes,
            },
        )
        if outcome.error is not None:
            span.set_attribute("error.type", outcome.error.name)
        if outcome.status not in _FINE:
            span.set_status(Status(StatusCode.ERROR, outcome.status.value))
        span.end()

    def context_took(self, context_id: str, elapsed_s: float) -> None:
        end_ns = time.time_ns()
        span = self._tracer.start_span(
            "create context",
            start_time=end_ns - int(elapsed_s * 1e9),
            attributes={"code_interpreter.context": context_id[:HANDLE_CHARS]},
        )
        span.end(end_ns)

    def call_refused(self, owner: Conversation, error: CallerError) -> None:  # noqa: ARG002
        """A limit is told in the span of the call that it turned away."""
        if isinstance(error, LimitReached):
            trace.get_current_span().add_event("limit reached", {"code_interpreter.limit": error.limit})


def set_up() -> None:
    """Give the process a provider that exports over OTLP, unless it has one. Raises SetupFailed without the extra."""
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError:
        raise SetupFailed("--traces needs OpenTelemetry's SDK: pip install 'mcp-code-interpreter[traces]'.") from None
    resource = resources.Resource.create({"service.name": SCOPE, "service.version": __version__})
    provider = sdk.TracerProvider(resource=resource)
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
