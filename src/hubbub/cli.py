"""The command line: `serve`, `local`, `token`, `doctor`, `bench`, `cost`, `version`.

Its flags are made of the settings' table. Whatever goes wrong in a foreseeable way ends in one clear message on
standard error: status 2 for what was asked for wrongly, 1 for what could not be done.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional, TextIO

import typer

from hubbub import __version__
from hubbub.config import (
    SETTINGS,
    Settings,
    SettingsError,
    default_of,
    is_list,
    kind_of,
    load,
    placeholder_of,
    read_keys,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hubbub.doctor import Finding
    from hubbub.flags import Flag
    from hubbub.listening import Ports

app = typer.Typer(
    name="hubbub",
    help="A chat backend: WebSocket gateway, chat functions, durable log.\n\n"
    "Try it: [bold]hubbub serve --dev[/bold], and open the page in two tabs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DEFAULT_DATA = default_of("data")


def _fail(message: str, status: int) -> NoReturn:
    typer.echo(_coloured(f"hubbub: {message}", typer.colors.RED, sys.stderr), err=True)
    raise typer.Exit(status)


def _coloured(text: str, colour: str, stream: TextIO) -> str:
    from hubbub.telemetry import may_colour

    return typer.style(text, fg=colour) if may_colour(stream) else text


def _load(flags: dict[str, Any], config: Path | None) -> Settings:
    try:
        return load(flags, os.environ, config)
    except SettingsError as error:
        _fail(str(error), 2)


_Config = Annotated[
    Optional[Path],  # noqa: UP045  typer reads this form on every Python
    typer.Option("--config", help="Settings file. By default hubbub.toml, if it is there.", metavar="FILE"),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        _version()
        raise typer.Exit


@app.callback()
def _hubbub(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", metavar="", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _serve(**given: Any) -> None:
    """Run the chat.

    [bold]hubbub serve --dev[/bold]  try it out: the page asks for a name, no token needed

    [bold]HUBBUB_SECRET=… hubbub serve --host 0.0.0.0[/bold]  your backend signs tokens with that secret

    [bold]hubbub serve myapp:chat[/bold]  with your own actions and hooks

    [bold]hubbub serve --handler http://127.0.0.1:5000/events[/bold]  no chat: your own view gets every event

    Settings can also stand in hubbub.toml (port = 8000) or in the environment (HUBBUB_PORT=8000); a flag wins.
    """
    config = given.pop("config")
    settings = _load(given, config)
    from hubbub import workers
    from hubbub.listening import CannotStart
    from hubbub.telemetry import configure_logging

    place = workers.take_place(os.environ)
    configure_logging(settings.log_level, settings.log_format, worker=place.number if place else None)
    try:
        if place is not None:
            place.end_with_parent(workers.ending_s(settings))
            _run_node(settings, place.ports(), lambda url: place.tell_ready())
        elif settings.workers > 1:
            _run_workers(settings)
        else:
            _run_node(settings, None, lambda url: _announce(url, settings))
    except SettingsError as error:
        _fail(str(error), 2)
    except CannotStart as error:
        _fail(str(error), 1)


def _run_node(settings: Settings, ports: Ports | None, announce: Callable[[str], None]) -> None:
    import uvloop

    from hubbub.app import load_chat, serve

    # Before there is an event loop: a module may run one of its own, or be waited for and interrupted.
    chat = load_chat(settings.app) if settings.app else None
    uvloop.run(serve(settings, chat=chat, ports=ports, announce=announce))


def _run_workers(settings: Settings) -> None:
    import asyncio

    from hubbub.workers import Supervisor

    async def supervise() -> int:
        return await Supervisor(settings, announce=lambda url: _announce(url, settings)).run()

    status = asyncio.run(supervise())
    if status:
        raise typer.Exit(status)


def _announce(url: str, settings: Settings) -> None:
    typer.secho(f"Hubbub {__version__} is running: {url}", bold=True)
    if settings.handler is not None:
        _announce_handler(url, settings)
    elif settings.dev:
        folder = "" if settings.data == _DEFAULT_DATA else f" --data {shlex.quote(settings.data)}"
        typer.echo("Open it in two tabs and be two people. Ctrl-C ends it.")
        typer.echo(f"A token for your own client: {_command()} token --user alice{folder}")
    sys.stdout.flush()


def _announce_handler(url: str, settings: Settings) -> None:
    signed = "signed" if settings.handler_secret else "not signed"
    typer.echo(f"Clients connect to ws{url.removeprefix('http')}{settings.path}")
    typer.echo(f"Events go to {settings.handler}, {signed}")
    if settings.management_keys or settings.dev:
        keys = "any key" if settings.dev else "the management keys"
        typer.echo(f"Messages to them come through {url}/@connections/ID, with {keys}")
    else:
        typer.echo("Messages to them come as answers only; with --management-keys through @connections too")


def _command() -> str:
    """How a shell in this folder calls this command: by its name if that is found, else by the path it has."""
    called = Path(sys.argv[0])
    if called.name != "hubbub" or shutil.which("hubbub"):
        return "hubbub"
    absolute = called.absolute()
    here = Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute))


def _signed(function: Any, parameters: list[inspect.Parameter]) -> Any:  # Any: typer reads the signature
    """Give `function(**given)` a signature of these."""
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def _with_settings(function: Any) -> Any:
    """Give `function(**given)` a flag for every setting."""
    parameters = [
        inspect.Parameter(
            "app",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Annotated[
                Optional[str],  # noqa: UP045
                typer.Argument(help=SETTINGS["app"].help, metavar=placeholder_of("app"), show_default=False),
            ],
        )
    ]
    for name in SETTINGS:
        if name != "app":
            hint: Any = bool if kind_of(name) == "true or false" else list[str] if is_list(name) else str
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None,
                    annotation=Annotated[Optional[hint], _option(name)],  # noqa: UP045
                )
            )
    parameters.append(inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Config))
    return _signed(function, parameters)


def _option(name: str) -> Any:  # Any: typer types its parameters so
    """The flag of a setting. What was not given stays None, so that the environment and the file are asked."""
    about, default, flag = SETTINGS[name], default_of(name), name.replace("_", "-")
    is_switch = isinstance(default, bool)
    words = about.help
    if is_list(name):
        words += " Several with commas between."
    elif default is not None and not is_switch:
        words += f" [dim]\\[default: {f'{default:g}' if isinstance(default, float) else default}][/dim]"
    return typer.Option(
        f"--{flag}/--no-{flag}" if is_switch else f"--{flag}",
        help=words,
        rich_help_panel=about.panel,
        show_default=False,
        metavar="" if is_switch else placeholder_of(name),
    )


app.command("serve")(_with_settings(_serve))


@app.command("token")
def _token(
    user: Annotated[str, typer.Option(help="The user's id: the token's sub.", metavar="ID")],
    name: Annotated[Optional[str], typer.Option(help="Name shown to others.", metavar="TEXT")] = None,  # noqa: UP045
    avatar: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Address of a picture shown to others.", metavar="URL"),
    ] = None,
    room: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="A room that the token grants, as a member unless a role is given. Repeat it for several.",
            metavar="ROOM[=ROLE]",
        ),
    ] = None,
    scope: Annotated[str, typer.Option(help="`server` for your backend's calls to /v1.", metavar="SCOPE")] = "",
    ttl: Annotated[str, typer.Option(help="How long it lasts: 90s, 15m, 1h, 7d.", metavar="TIME")] = "1h",
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help=f"Data folder with the development secret. By default {_DEFAULT_DATA}.", metavar="FOLDER"),
    ] = None,
    config: _Config = None,
) -> None:
    """Issue a token, on the last line of standard output.

    It is signed with the secret of the settings, or with the one that `hubbub serve --dev` keeps in the data folder.

    [bold]hubbub token --user alice --room general=owner[/bold]

    [bold]hubbub token --user backend --scope server --ttl 30d[/bold]
    """
    import time

    from hubbub.auth import issue

    settings = _load({"data": data}, config)
    try:
        token = issue(
            _signing_secret(settings),
            user=user,
            ttl_s=_seconds(ttl),
            now_s=int(time.time()),
            name=name,
            avatar=avatar,
            rooms=_granted(room or []),
            scope=scope,
            audience=settings.audience,
            issuer=settings.issuer,
        )
    except (SettingsError, ValueError) as error:
        _fail(str(error), 2)
    typer.echo(f"A token for {user}, good for {ttl}:", err=True)
    typer.echo(token)


def _signing_secret(settings: Settings) -> str:
    """The secret that a server with these settings believes.

    Raises:
        SettingsError: there is none here.

    """
    from hubbub.config import dev_secret

    if settings.secret or settings.secret_file:
        return read_keys(settings).secrets[0]
    if settings.has_key:
        raise SettingsError(
            "secret: there is none to sign with: with public keys, whoever has the private key issues the tokens"
        )
    secret = dev_secret(Path(settings.data), create=False)
    if secret is None:
        raise SettingsError(
            f"secret: there is none to sign with: no HUBBUB_SECRET, and no development secret in {settings.data}.\n"
            "Run `hubbub serve --dev` here first, name its folder with --data, or set HUBBUB_SECRET."
        )
    return secret


def _granted(rooms: list[str]) -> dict[str, str]:
    """Roles by room.

    Raises:
        ValueError: a room or role is not possible.

    """
    from hubbub.model import ROOM_ID_PATTERN, Role

    granted: dict[str, str] = {}
    for given in rooms:
        room, separator, role = given.partition("=")
        if re.match(ROOM_ID_PATTERN, room) is None:
            raise ValueError(f"room: expected 1 to 64 characters of A-Z a-z 0-9 . _ : -, got {room!r}")
        if separator and role not in set(Role):
            raise ValueError(f"room: expected ROOM=ROLE with a role of {', '.join(Role)}, got {given!r}")
        granted[room] = role or Role.MEMBER
    return granted


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhd])", text)
    if match is None:
        raise ValueError(f"ttl: expected a number with s, m, h or d such as 90s, 15m, 1h or 7d, got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def _doctor(**given: Any) -> None:
    """Look at settings, keys, store, port, clock and limits, and say what to do.

    Takes the same settings as `serve`. Ends with status 1 if something would keep the chat from working.
    """
    config = given.pop("config")
    settings = _load(given, config)
    import asyncio

    from hubbub.app import load_chat
    from hubbub.doctor import Finding, examine
    from hubbub.listening import CannotStart

    findings = asyncio.run(examine(settings))
    if settings.app is not None:
        try:
            load_chat(settings.app)
            findings.append(Finding("ok", "app", f"{settings.app} is a Chat"))
        except (SettingsError, CannotStart) as error:
            findings.append(Finding("fail", "app", str(error).removeprefix("app: ")))
    _print(findings)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    """One finding a line, and further lines of its words below them."""
    colours = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}
    for finding in findings:
        state = _coloured(f"{finding.state:<4}", colours[finding.state], sys.stdout)
        typer.echo(f"{state}  {finding.what:<11}  {finding.words.replace(chr(10), chr(10) + ' ' * 19)}")


app.command("doctor")(_with_settings(_doctor))


@app.command(
    "local", epilog="[bold]hubbub local … -- COMMAND[/bold] runs a command beside the stack and ends with its status."
)
def _local(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help="A template, or the folder that it is in.", metavar="[PATH]")] = ".",
    parameter: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A parameter of the template, or an option such as stage. Repeat it.", metavar="NAME=VALUE"),
    ] = None,
    env_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Variables for all functions, one NAME=VALUE a line.", metavar="FILE"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.", metavar="HOST")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port of the first API; others get those after it. 0 for free ones.")
    ] = 8000,
    quotas: Annotated[
        str,
        typer.Option(help="`aws` for AWS's quotas, `none`; values may follow: aws,idle_s=6,requests=100/50."),
    ] = "none",
    endpoint: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Where a service runs already; `*` for all. Repeat it.", metavar="SERVICE=URL"),
    ] = None,
    region: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="By default what serverless.yml says, AWS_REGION, or us-east-1.", metavar="REGION"),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The stack's name. By default the folder's.", metavar="NAME"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Do not follow changes of sources and template.")] = False,
) -> None:
    """Run a WebSocket stack made for AWS on this machine: SAM, CloudFormation or serverless.yml.

    [bold]hubbub local[/bold]  the template in this folder, with everything it has

    [bold]hubbub local examples/sam-python --quotas aws[/bold]  with API Gateway's quotas

    [bold]hubbub local . -- pytest[/bold]  run a command against it; it finds the stack at $HUBBUB_URL
    """
    try:
        import uvloop

        from hubbub.emulator.console import Console
        from hubbub.emulator.local import local, named_values, read_env_file
        from hubbub.emulator.running import RunningStack
        from hubbub.emulator.template import TemplateError
    except ModuleNotFoundError as error:
        _fail(f"local: {error.name} is not installed; it comes with: pip install 'hubbub[local]'", 1)
    import logging

    from hubbub.telemetry import configure_logging

    configure_logging("warning", "text")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what clients do wrong is for them to be told
    console = Console()
    try:
        stack = RunningStack(
            path,
            parameters=named_values("parameter", parameter or []),
            environment=read_env_file(env_file) if env_file else None,
            host=host,
            port=port,
            quotas=quotas,
            endpoints=named_values("endpoint", endpoint or []),
            region=region,
            name=name,
            watch=not once,
            on_log=console.line,
            on_report=console.report,
            say=console.say,
        )
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}", 2)
    except (TemplateError, ValueError) as error:
        _fail(str(error), 2)
    raise typer.Exit(uvloop.run(local(stack, console, context.obj or ())))


def _cost(**given: Any) -> None:
    """Say what a chat costs a month on AWS, and which quota breaks first.

    [bold]hubbub cost[/bold]  a team's chat in three homes: API Gateway, our gateway on instances, and mixed

    [bold]hubbub cost --preset community --shape serverless[/bold]  one home's bill with its quantities

    [bold]hubbub cost --sweep members=10,100,1000,10000[/bold]  at which size which home is cheapest
    """
    from hubbub.cost.command import run
    from hubbub.cost.scenario import CostError

    try:
        run(given, sys.stdout)
    except CostError as error:
        _fail(str(error), 2)


def _bench(**given: Any) -> None:
    """Load-test a deployment of the chat, in any home, and say whether it held.

    [bold]hubbub bench ws://127.0.0.1:8000/ws[/bold]  beside `hubbub serve --dev`, in the same folder

    [bold]hubbub bench wss://chat.example.com/ws --tokens FILE --connections 2000 --rooms 50 --html r.html[/bold]

    [bold]hubbub bench ws://127.0.0.1:8000/ws --connections 5000 --storm --slow 10 --history 5[/bold]  when it goes hard

    Ends with status 1 if anything was lost, doubled, out of order, refused, unanswered, or slower than asked for.
    Ctrl-C ends it early, with the report of what there was.
    """
    from hubbub.loadtest.command import CannotRun, PlanError, run

    url = given.pop("url")
    settings = _load({}, given.pop("config"))
    secret = None
    if not any(given[way] for way in ("secret", "token_url", "tokens")):
        with contextlib.suppress(SettingsError):  # that there is none is for the plan to say
            secret = _signing_secret(settings)
    try:
        status = run(
            *(url, given, sys.stdout, sys.stderr, __version__),
            secret=secret,
            audience=settings.audience,
            issuer=settings.issuer,
        )
    except PlanError as error:
        _fail(str(error), 2)
    except CannotRun as error:
        _fail(str(error), 130 if error.by_hand else 1)
    raise typer.Exit(status)


def _parameters(flags: Iterable[Flag]) -> list[inspect.Parameter]:
    """Of a function that is given these flags by name."""
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if each.metavar is None else None,
            annotation=Annotated[
                bool if each.metavar is None else Optional[str],  # noqa: UP045
                typer.Option(
                    f"--{each.name.replace('_', '-')}",
                    help=each.help + (f" [dim]\\[default: {each.default}][/dim]" if each.default else ""),
                    metavar=each.metavar or "",
                    rich_help_panel=each.panel,
                    show_default=False,
                ),
            ],
        )
        for each in flags
    ]


def _with_load(function: Any) -> Any:
    """Give `function(**given)` a URL and the flags of the load test."""
    from hubbub.loadtest.flags import FLAGS

    url = inspect.Parameter(
        "url",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        annotation=Annotated[str, typer.Argument(help="Of the WebSocket.", metavar="URL", show_default=False)],
    )
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Config)
    return _signed(function, [url, *_parameters(FLAGS), config])


app.command("bench")(_with_load(_bench))


def _with_inputs(function: Any) -> Any:
    """Give `function(**given)` the flags of the model, one for each input of the chat."""
    from hubbub.cost.flags import FLAGS

    return _signed(function, _parameters(FLAGS))


app.command("cost")(_with_inputs(_cost))


@app.command("version")
def _version() -> None:
    """Print the version."""
    typer.echo(f"hubbub {__version__}")


def main() -> None:
    """The console entry point."""
    arguments, command = sys.argv[1:], []
    if arguments[:1] == ["local"] and "--" in arguments:  # what follows is a command of its own
        end = arguments.index("--")
        arguments, command = arguments[:end], arguments[end + 1 :]
    try:
        app(arguments, obj=command)
    except ImportError as error:
        if error.name != "hubbub.gateway._accelerator":
            raise
        typer.echo(_coloured(f"hubbub: {error}", typer.colors.RED, sys.stderr), err=True)
        sys.exit(1)
