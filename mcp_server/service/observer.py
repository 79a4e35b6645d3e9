"""What watches a service: the port of whatever counts, traces or records, so that the service knows none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcp_server.errors import CallerError, CodeInterpreterError
from mcp_server.model import ContextInfo, ContextSpec, Conversation, Outcome, Report, RunCall


@dataclass(frozen=True, slots=True)
class RunKey:
    """Which run something is said of."""

    owner: Conversation
    context_id: str
    number: int


class ServiceObserver:
    """Hears what happens, in its order; a subclass overrides what it cares for.

    Each method is called on the event loop, must return at once, and must not raise: what an observer cannot do is its
    own matter and no run's. `Service` gives what it hears to each of its observers.
    """

    def context_created(self, owner: Conversation, info: ContextInfo, spec: ContextSpec, *, default: bool) -> None:
        """A context is there; `default`: the one that a conversation's calls without a handle use."""

    def context_took(self, context_id: str, elapsed_s: float) -> None:
        """How many seconds the engine took to make it; in the task of the call that asked, or a child of it."""

    def context_deleted(self, owner: Conversation, context_id: str) -> None:
        """A context has ended: deleted, expired, or with its conversation."""

    def run_queued(self, run: RunKey, call: RunCall, *, streamed: bool) -> None:
        """A call's code takes its place, in the task of that call. `streamed`: no report will be given."""

    def run_began(self, run: RunKey) -> None:
        """It is its turn."""

    def run_ended(self, run: RunKey, outcome: Outcome) -> None:
        """It ended, or was taken from the queue: then it never began, and is `cancelled`."""

    def run_failed(self, run: RunKey, error: CodeInterpreterError) -> None:
        """It could not be carried out, or its context was deleted before it began."""

    def run_printed(self, run: RunKey, output_bytes: int) -> None:
        """How much it printed: told once, right before its end."""

    def report_given(self, run: RunKey, report: Report) -> None:
        """A call returns this; a run that a call yielded has several."""

    def call_refused(self, owner: Conversation, error: CallerError) -> None:
        """A call that would have made a context or a run was refused."""

    def call_ended(self, tool: str, result: str, elapsed_s: float) -> None:
        """A tool was called, and the answer is ``ok``, ``refused``, ``failed`` or ``cancelled``."""

    def request_refused(self, limit: str) -> None:
        """A request was turned away before it came to a door, by the limit of this name."""


class Observers(ServiceObserver):
    """Several as one."""

    def __init__(self, observers: Sequence[ServiceObserver]) -> None:
        self._observers = tuple(observers)

    def context_created(self, owner: Conversation, info: ContextInfo, spec: ContextSpec, *, default: bool) -> None:
        for observer in self._observers:
            observer.context_created(owner, info, spec, default=default)

    def context_took(self, context_id: str, elapsed_s: float) -> None:
        for observer in self._observers:
            observer.context_took(context_id, elapsed_s)

    def context_deleted(self, owner: Conversation, context_id: str) -> None:
        for observer in self._observers:
            observer.context_deleted(owner, context_id)

    def run_queued(self, run: RunKey, call: RunCall, *, streamed: bool) -> None:
        for observer in self._observers:
            observer.run_queued(run, call, streamed=streamed)

    def run_began(self, run: RunKey) -> None:
        for observer in self._observers:
            observer.run_began(run)

    def run_ended(self, run: RunKey, outcome: Outcome) -> None:
        for observer in self._observers:
            observer.run_ended(run, outcome)

    def run_failed(self, run: RunKey, error: CodeInterpreterError) -> None:
        for observer in self._observers:
            observer.run_failed(run, error)

    def run_printed(self, run: RunKey, output_bytes: int) -> None:
        for observer in self._observers:
            observer.run_printed(run, output_bytes)

    def report_given(self, run: RunKey, report: Report) -> None:
        for observer in self._observers:
            observer.report_given(run, report)

    def call_refused(self, owner: Conversation, error: CallerError) -> None:
        for observer in self._observers:
            observer.call_refused(owner, error)

    def call_ended(self, tool: str, result: str, elapsed_s: float) -> None:
        for observer in self._observers:
            observer.call_ended(tool, result, elapsed_s)

    def request_refused(self, limit: str) -> None:
        for observer in self._observers:
            observer.request_refused(limit)


class ToldRefusals:
    """A context manager: the observer hears of the `CallerError` that leaves it."""

    __slots__ = ("_observer", "_owner")

    def __init__(self, observer: ServiceObserver, owner: Conversation) -> None:
        self._observer = observer
        self._owner = owner

    def __enter__(self) -> None:
        """Nothing is to be told yet."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, CallerError):
            self._observer.call_refused(self._owner, error)
