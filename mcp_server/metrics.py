"""Figures for Prometheus. Needs the extra `metrics`.

Told through the service's port for observers; what is a state and no event (contexts, open requests) is read when it is
asked for. Nothing here names a conversation, a principal, code or output: labels are of closed sets.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_server.errors import CallerError, CodeInterpreterError, LimitReached
from mcp_server.model import Conversation, Outcome, RunCall
from mcp_server.service.observer import RunKey, ServiceObserver

METRICS_PATH = "/metrics"

RUN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""From a run that does next to nothing to the default timeout."""

CREATE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""From a context that was kept ready to an interpreter that must be started."""


class PrometheusMetrics(ServiceObserver):
    """Counts, in a registry of its own."""

    def __init__(self) -> None:
        self._queued_at_s: dict[RunKey, float] = {}
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        prefix = "code_interpreter"
        self._runs = Counter(
            f"{prefix}_runs",
            "Runs, by what became of them.",
            ["status", "variables"],
            registry=self.registry,
        )
        self._run_s = Histogram(
            f"{prefix}_run_seconds", "How long runs took.", buckets=RUN_BUCKETS_S, registry=self.registry
        )
        self._queue_s = Histogram(
            f"{prefix}_run_queue_seconds",
            "How long runs waited for their turn.",
            buckets=RUN_BUCKETS_S,
            registry=self.registry,
        )
        self._output_bytes = Counter(f"{prefix}_output_bytes", "What runs printed.", registry=self.registry)
        self._create_s = Histogram(
            f"{prefix}_context_create_seconds",
            "How long it took to make a context.",
            buckets=CREATE_BUCKETS_S,
            registry=self.registry,
        )
        self._calls = Counter(
            f"{prefix}_tool_calls", "Tool calls, by their answer.", ["tool", "result"], registry=self.registry
        )
        self._call_s = Histogram(
            f"{prefix}_tool_call_seconds",
            "How long tool calls took, waiting included.",
            ["tool"],
            buckets=RUN_BUCKETS_S,
            registry=self.registry,
        )
        self._limits = Counter(
            f"{prefix}_limits_reached", "Requests turned away, by the limit.", ["limit"], registry=self.registry
        )

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show what `read` gives at the time."""
        Gauge(f"code_interpreter_{name}", meaning, registry=self.registry).set_function(read)

    def route(self) -> Route:
        return Route(METRICS_PATH, self._show, methods=["GET"])

    async def _show(self, request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self.registry), headers={"Content-Type": media_type})

    # -- the observer ---------------------------------------------------------------------------------------------

    def run_queued(self, run: RunKey, call: RunCall, *, streamed: bool) -> None:  # noqa: ARG002
        self._queued_at_s[run] = time.monotonic()

    def run_began(self, run: RunKey) -> None:
        self._queue_s.observe(time.monotonic() - self._queued_at_s.pop(run))

    def run_printed(self, run: RunKey, output_bytes: int) -> None:  # noqa: ARG002
        self._output_bytes.inc(output_bytes)

    def run_ended(self, run: RunKey, outcome: Outcome) -> None:
        if self._queued_at_s.pop(run, None) is None:  # it had begun
            self._run_s.observe(outcome.elapsed_s)
        self._runs.labels(outcome.status, outcome.state).inc()

    def run_failed(self, run: RunKey, error: CodeInterpreterError) -> None:  # noqa: ARG002
        self._queued_at_s.pop(run, None)

    def context_took(self, context_id: str, elapsed_s: float) -> None:  # noqa: ARG002
        self._create_s.observe(elapsed_s)

    def call_ended(self, tool: str, result: str, elapsed_s: float) -> None:
        self._calls.labels(tool, result).inc()
        self._call_s.labels(tool).observe(elapsed_s)

    def call_refused(self, owner: Conversation, error: CallerError) -> None:  # noqa: ARG002
        if isinstance(error, LimitReached):
            self.request_refused(error.limit)

    def request_refused(self, limit: str) -> None:
        self._limits.labels(limit).inc()
