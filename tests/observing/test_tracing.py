"""Spans of runs: beneath the SDK's, in the client's trace, whichever run of a context is asked for when."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest
from mcp import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcp_server.app import build_server
from mcp_server.composition import texts_for
from mcp_server.engine.scripted import Assign, Die, Fail, ScriptedEngine, Step, Write
from mcp_server.service import Service, ServiceLimits
from mcp_server.settings import Settings
from mcp_server.tracing import SCOPE, Tracing
from tests.mcp.server_processes import START_BOUND_S, command

pytestmark = pytest.mark.anyio

SCRIPTS: dict[str, list[Step]] = {
    "x = 1": [Assign("x", "1")],
    "hello": [Write(b"hello\n")],
    "1 / 0": [Fail("ZeroDivisionError", "division by zero")],
    "die": [Die(signal=11)],
}

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """The SDK's own spans go to the process's provider, which can be set once."""
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    return memory


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    yield exporter
    exporter.clear()


async def client_of(service: Service) -> Client:
    settings = Settings()
    await service.start()
    return Client(build_server(service, settings, texts_for(service, settings, None), "test"))


def named(spans: InMemorySpanExporter, name: str) -> Sequence[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def server_span(spans: InMemorySpanExporter, tool: str = "run_code") -> Sequence[ReadableSpan]:
    return [span for span in named(spans, f"tools/call {tool}") if span.kind is trace.SpanKind.SERVER]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_run_is_a_span_beneath_the_call_in_the_clients_trace(spans: InMemorySpanExporter) -> None:
    service = Service(ScriptedEngine(SCRIPTS), observers=[Tracing()])
    meta: Any = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
    async with await client_of(service) as client:
        with trace.use_span(trace.INVALID_SPAN):
            await client.call_tool("run_code", {"code": "hello"}, meta=meta)
    await service.close()
    [run], [call] = named(spans, "run"), server_span(spans)
    assert run.parent is not None
    assert call.context is not None
    assert run.parent.span_id == call.context.span_id
    assert run.context is not None
    assert run.context.trace_id == call.context.trace_id
    assert run.instrumentation_scope is not None
    assert run.instrumentation_scope.name == SCOPE
    facts = attributes(run)
    assert facts["code_interpreter.status"] == "ok"
    assert facts["code_interpreter.variables"] == "kept"
    assert (facts["code_interpreter.run"], facts["code_interpreter.output_bytes"]) == (1, 6)
    [made] = named(spans, "create context")
    assert made.parent is not None
    assert made.parent.span_id == call.context.span_id
    assert "hello" not in str(facts)
    assert run.start_time is not None
    assert run.end_time is not None
    assert run.start_time <= run.end_time


async def test_each_of_several_runs_is_beneath_the_call_that_asked_for_it(spans: InMemorySpanExporter) -> None:
    """One task carries out a context's runs, one after another, whoever asked for the first of them."""
    service = Service(ScriptedEngine(SCRIPTS), observers=[Tracing()])
    async with await client_of(service) as client:
        await client.call_tool("run_code", {"code": "x = 1"})
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(client.call_tool, "run_code", {"code": "hello"})
    await service.close()
    parents = {run.parent.span_id for run in named(spans, "run") if run.parent is not None}
    calls = {call.context.span_id for call in server_span(spans) if call.context is not None}
    assert len(parents) == 6
    assert parents == calls


@pytest.mark.parametrize(
    ("code", "status", "fails", "kind"),
    [("1 / 0", "error", True, "ZeroDivisionError"), ("die", "crashed", True, None), ("hello", "ok", False, None)],
)
async def test_a_span_says_what_became_of_its_run(
    spans: InMemorySpanExporter, code: str, status: str, fails: bool, kind: str | None
) -> None:
    service = Service(ScriptedEngine(SCRIPTS), observers=[Tracing()])
    async with await client_of(service) as client:
        await client.call_tool("run_code", {"code": code})
    await service.close()
    [run] = named(spans, "run")
    assert attributes(run)["code_interpreter.status"] == status
    assert attributes(run).get("error.type") == kind
    assert (run.status.status_code is trace.StatusCode.ERROR) is fails
    assert "division by zero" not in str(run.to_json())


async def test_a_limit_is_told_in_the_span_of_the_call_that_met_it(spans: InMemorySpanExporter) -> None:
    service = Service(ScriptedEngine(SCRIPTS), ServiceLimits(contexts=1), [Tracing()])
    async with await client_of(service) as client:
        await client.call_tool("create_context", {})
        await client.call_tool("create_context", {})
    await service.close()
    events = [
        (event.name, dict(event.attributes or {}))
        for span in server_span(spans, "create_context")
        for event in span.events
    ]
    assert events == [("limit reached", {"code_interpreter.limit": "contexts"})]


async def test_the_flag_sets_up_an_exporter_and_is_refused_in_one_line_without_the_library() -> None:
    show = "from mcp_server import tracing; tracing.set_up(); from opentelemetry import trace; "
    show += "print(type(trace.get_tracer_provider()).__module__)"
    done = await anyio.run_process([sys.executable, "-c", show], check=False, stderr=subprocess.PIPE)
    assert done.stdout.decode().strip() == "opentelemetry.sdk.trace", done.stderr
    hidden = "import sys; sys.modules['opentelemetry.sdk.trace'] = None; from mcp_server.cli import main; main()"
    program = [sys.executable, "-c", hidden, *command("--traces", "serve")[3:]]
    with anyio.fail_after(START_BOUND_S):
        done = await anyio.run_process(program, check=False, stderr=subprocess.PIPE)
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert "pip install 'mcp-code-interpreter[traces]'" in line
