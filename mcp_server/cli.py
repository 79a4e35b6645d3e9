"""The command line. Which implementations it runs is `composition`'s to say.

Heavy imports stand inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mcp_server import __version__, waiting
from mcp_server.composition import (
    Cells,
    EngineChoice,
    EngineKind,
    cell_plan,
    chosen_engine,
    local_engine,
    refuse_weak_sandbox,
    service_over,
    texts_for,
)
from mcp_server.errors import SetupFailed
from mcp_server.figures import ImageShelf
from mcp_server.flags import with_settings
from mcp_server.settings import LogFormat, LogLevel, Settings

if TYPE_CHECKING:
    from mcp_server.service import Service
    from mcp_server.transcripts.lines import Transcript

SETUP_STATUS = 1
"""Exit status of a start that failed."""

USAGE_STATUS = 2
"""Of a wrong command line, as everywhere."""

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Whatever is wrong on a command line. The class that typer's own derives from has no public name."""

_ACCESS_PANEL = "Who may use it, and from where"
_REMOTE_PANEL = "Running the code elsewhere"


app = typer.Typer(
    name="mcp-code-interpreter",
    no_args_is_help=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The console script."""
    _open_standard_streams()
    if sys.platform != "linux":
        _fail("Contexts are isolated by Linux's own means: run this on Linux, in a virtual machine or a container.")
    try:
        raise SystemExit(app(prog_name=app.info.name, standalone_mode=False))
    except SetupFailed as error:
        _fail(str(error))
    except UsageError as error:
        _fail(_usage(error), USAGE_STATUS)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _open_standard_streams() -> None:
    """Where one of the three was closed, the next file or socket would take its number, and be written to."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            setattr(sys, name, os.fdopen(fd, mode))


def _fail(text: str, status: int = SETUP_STATUS) -> NoReturn:
    with suppress(BrokenPipeError):
        sys.stderr.write(f"mcp-code-interpreter: {text}\n")
    raise SystemExit(status)


def _usage(error: Any) -> str:
    """One line, with the command whose help says more."""
    path = error.ctx.command_path if error.ctx is not None else app.info.name
    reason = " ".join(error.format_message().split()).removesuffix(".")
    return f"{reason}. See {path} --help."


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
@with_settings
def serve_stdio(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    engine: Annotated[
        EngineKind, typer.Option(help="Where code runs.", rich_help_panel=_REMOTE_PANEL)
    ] = EngineKind.LOCAL,
    url: Annotated[
        str, typer.Option(help="Of the toolbox server, or of Daytona's API.", rich_help_panel=_REMOTE_PANEL)
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token to show there.", rich_help_panel=_REMOTE_PANEL)
    ] = None,
    *,
    flags: dict[str, Any],
) -> None:
    """A stateful Python code interpreter for agents, served over MCP.

    Without a command it speaks MCP on stdin and stdout: this is what a client is told to start.

    - `claude mcp add python -- mcp-code-interpreter` adds it to a client

    - `mcp-code-interpreter doctor` says how well this machine can isolate code

    - `mcp-code-interpreter run -c "print(6 * 7)"` runs something by hand

    - `mcp-code-interpreter serve` answers many clients, over HTTP

    Every setting is a flag of each command, and a variable: `--timeout-s 60` or `CODE_INTERPRETER_TIMEOUT_S=60`.
    """
    context.obj = flags
    context.meta[EngineChoice.__name__] = choice = EngineChoice(engine, url, token_file)
    if context.invoked_subcommand is None:
        settings = _settings(context)
        _configure_log(settings)
        if sys.stdin.isatty():
            typer.echo("Speaking MCP on stdin and stdout, which is meant for a client. Ctrl-D ends it.", err=True)
        _run(_serve_stdio(settings, choice))


@app.command()
@with_settings
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes any free one.")] = 8000,
    unix_socket: Annotated[
        Path | None, typer.Option(help="Listen on a Unix socket instead, which only this user may open.")
    ] = None,
    toolbox: Annotated[
        bool, typer.Option("--toolbox", help="Serve Daytona's API as well, at `/api` and `/toolbox`.")
    ] = False,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Serve figures for Prometheus at `/metrics`, to whoever may ask the rest.")
    ] = False,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="File with bearer tokens, NAME TOKEN a line: whoever asks must show one. SIGHUP reads it again.",
            rich_help_panel=_ACCESS_PANEL,
        ),
    ] = None,
    oauth_issuer: Annotated[
        str, typer.Option(help="Authorization server whose access tokens are taken.", rich_help_panel=_ACCESS_PANEL)
    ] = "",
    oauth_resource: Annotated[
        str,
        typer.Option(
            help="Public address of this server, as in https://code.example.org/mcp: the audience of those tokens.",
            rich_help_panel=_ACCESS_PANEL,
        ),
    ] = "",
    oauth_scope: Annotated[
        list[str] | None,
        typer.Option(help="A scope that those tokens must have. May be repeated.", rich_help_panel=_ACCESS_PANEL),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name under which clients ask this server (Host). May be repeated.", rich_help_panel=_ACCESS_PANEL
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(help="A web page that may use it (Origin). May be repeated.", rich_help_panel=_ACCESS_PANEL),
    ] = None,
    listener_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    *,
    flags: dict[str, Any],
) -> None:
    """Serve MCP over streamable HTTP at `/mcp`, with `/healthz` beside it.

    `mcp-code-interpreter serve --port 8000` answers at http://127.0.0.1:8000/mcp, this machine alone.

    `mcp-code-interpreter serve --host 0.0.0.0 --tokens FILE` answers others, who must show one of the tokens.

    With `--toolbox` the published `daytona` SDKs, and this package's own `CodeInterpreter`, can use it too.

    Requests that name a conversation (header `X-Conversation-Id`, or the session of an older client) find its
    variables again; others reach their contexts by `context_id`.
    """
    settings = _settings(context, flags)
    _configure_log(settings)
    choice = context.meta[EngineChoice.__name__]
    from mcp_server import serving

    names = tuple(allowed_host or ()), tuple(allowed_origin or ())
    address = serving.Address(host, port, unix_socket, listener_fd, parent, *names)
    credentials = serving.Credentials(tokens, oauth_issuer, oauth_resource, tuple(oauth_scope or ()))
    plan = serving.HttpPlan(address, credentials, toolbox, metrics)
    _run(serving.serve(settings, choice, plan))


@app.command()
@with_settings
def run(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="File with the code; - reads stdin.", allow_dash=True)] = None,
    code: Annotated[str | None, typer.Option("-c", help="The code itself.", metavar="CODE")] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Directory to save figures and other images in.", metavar="DIR"),
    ] = None,
    *,
    flags: dict[str, Any],
) -> None:
    """Run code in a fresh context, with its output live on the terminal.

    `mcp-code-interpreter run analysis.py --workspace .` lets the code work on the files of this directory;

    `mcp-code-interpreter run plot.py --images figures` saves what it draws;

    `echo "6 * 7" | mcp-code-interpreter run -` shows the value of the last expression, as a notebook does.

    Exit status: 0 where it ran to its end, or what the code gave to `exit()`; 1 for an exception, 124 for a timeout,
    130 for Ctrl-C, 128 and the signal's number for a crash.
    """
    if (file is None) == (code is None):
        raise typer.BadParameter("give either a FILE or -c CODE")
    source = code if code is not None else _read_source(file)
    if not flags.get("log_level"):
        flags = {**flags, "log_level": LogLevel.WARNING}
    settings = _settings(context, flags)
    _configure_log(settings)
    _run(_run_on_terminal(settings, source, ImageShelf(images)))


@app.command()
@with_settings
def replay(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file that `--transcript DIR` made.", show_default=False)],
    *,
    flags: dict[str, Any],
) -> None:
    """Play a recorded conversation again, in fresh contexts here, and compare.

    Says of each run whether its status, its output and its result are the same. Times, handles and addresses are left
    out. Exit status: 0 where all are alike, else 1.

    `mcp-code-interpreter replay transcripts/20260301T120000Z-4711-6c0f….jsonl`
    """
    from mcp_server.transcripts.lines import read

    if not flags.get("log_level"):
        flags = {**flags, "log_level": LogLevel.ERROR}
    settings = _settings(context, {**flags, "transcript": ""})
    _configure_log(settings)
    transcript = read(file)
    _run(_replay(settings, transcript))


@app.command()
@with_settings
def doctor(context: typer.Context, *, flags: dict[str, Any]) -> None:
    """Try what this machine offers for isolation, and say what is missing and how to mend it.

    `mcp-code-interpreter doctor --python /opt/py/bin/python` tries another interpreter, and what it can preload.

    Exit status: 0 where contexts can be started with the sandbox that the settings ask for, else 1.
    """
    settings = _settings(context, {**flags, "log_level": flags.get("log_level") or LogLevel.ERROR})
    _configure_log(settings)
    _run(_doctor(settings))


# -- commands -------------------------------------------------------------------------------------------------------


async def _serve_stdio(settings: Settings, choice: EngineChoice) -> int:
    engine, warmth = chosen_engine(settings, choice)
    service = service_over(engine, settings)
    try:
        with waiting.shown(waiting.STARTING):
            await _start_beside_import(service, "mcp_server.app")
        from mcp_server import stdio_server
        from mcp_server.app import build_server

        return await stdio_server.serve(
            build_server(service, settings, texts_for(service, settings, warmth()), "stdio")
        )
    finally:
        await service.close()


async def _start_beside_import(service: Service, module: str) -> None:
    """Start a service, whose engine warms up in processes of its own; what takes long to import comes in meanwhile."""
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0)  # it has started them, and waits
    importing = asyncio.get_running_loop().run_in_executor(None, importlib.import_module, module)
    await starting
    await importing


async def _run_on_terminal(settings: Settings, source: str, images: ImageShelf) -> int:
    from mcp_server import terminal

    # There will be one context: it imports what it needs, and nobody would need the rest.
    engine, _ = local_engine(settings.model_copy(update={"preload": ()}))
    try:
        with waiting.shown(waiting.STARTING):
            await engine.start()
        return await terminal.run(engine, source, settings.timeout_s, images)
    finally:
        await engine.close()


async def _replay(settings: Settings, transcript: Transcript) -> int:
    from rich.console import Console

    from mcp_server.transcripts import playback

    engine, _ = local_engine(settings)
    service = service_over(engine, settings)
    try:
        await service.start()
        return await playback.play(service, transcript, Console())
    finally:
        await service.close()


async def _doctor(settings: Settings) -> int:
    from rich.console import Console

    from mcp_server import doctor
    from mcp_server.sandbox import probe

    console = Console()
    trouble = ""
    with waiting.shown("Trying what this machine offers …"):
        found = probe.probe()
        cells = Cells(cell_plan(settings, found))
        try:
            cell = cells()
            await cell.start()
            await cell.close()
        except SetupFailed as error:
            trouble = str(error)
    doctor.show(console, found, cells.warmth, settings.python)
    if not trouble:
        try:
            refuse_weak_sandbox(found, settings)
        except SetupFailed as error:
            trouble = str(error)
    if trouble:
        console.print(f"\n{trouble}", style="red", markup=False, highlight=False)
    return SETUP_STATUS if trouble else 0


def _settings(context: typer.Context, flags: dict[str, Any] | None = None) -> Settings:
    """Flags after the command's name win over those before it."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    return Settings.load(**{**(context.obj or {}), **given})


def _configure_log(settings: Settings) -> None:
    from mcp_server import telemetry

    telemetry.configure(settings.log_level, LogFormat(settings.log_format))


def _read_source(file: Path | None) -> str:
    if file is None or str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupFailed(f"Cannot read {file}: {error}") from None


def _run(work: Coroutine[Any, Any, int]) -> None:
    """Run on uvloop and leave with the status that the work gives."""
    import resource

    import uvloop

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a context takes four descriptors

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        status = runner.run(_undone_by_signal(work))
    raise typer.Exit(status)


async def _undone_by_signal(work: Coroutine[Any, Any, int]) -> int:
    """A signal cancels the work for as long as that has no other use for it: what was begun is undone, not left.

    A second one ends the process at once. SIGINT the runner treats alike.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    told: list[int] = []

    def stop(number: int) -> None:
        told.append(number)
        loop.remove_signal_handler(number)
        if task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not told:
            raise
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    os._exit(128 + told[0])  # the interpreter's own end would wait for a thread that still imports


if __name__ == "__main__":
    main()
