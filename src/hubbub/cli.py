"""The command line: `serve`, `token`, `doctor`, `version`.

Its flags are made of the settings' table. Whatever goes wrong in a foreseeable way ends in one clear message on
standard error: status 2 for what was asked for wrongly, 1 for what could not be done.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from hubbub import __version__
from hubbub.config import SETTINGS, Settings, SettingsError, is_list, kind_of, load, read_keys

if TYPE_CHECKING:
    from hubbub.doctor import Finding

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


def _fail(message: str, status: int) -> NoReturn:
    typer.secho(f"hubbub: {message}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    raise typer.Exit(status)


def _load(flags: dict[str, Any], config: Path | None) -> Settings:
    try:
        return load(flags, os.environ, config)
    except SettingsError as error:
        _fail(str(error), 2)


_Config = Annotated[
    Optional[Path],  # noqa: UP045  typer reads this form on every Python
    typer.Option("--config", help="Settings file.", show_default="hubbub.toml if it is there", metavar="FILE"),
]


def _serve(**given: Any) -> None:
    """Run the chat.

    Every setting can also stand in hubbub.toml, or in the environment as HUBBUB_ and its name in capitals.

    [bold]hubbub serve --dev[/bold]  try it out: the page asks for a name, no token needed

    [bold]HUBBUB_SECRET=… hubbub serve --host 0.0.0.0[/bold]  your backend signs tokens with that secret

    [bold]hubbub serve myapp:chat[/bold]  with your own actions and hooks
    """
    settings = _load(given, given.pop("config"))
    from hubbub.telemetry import configure_logging

    configure_logging(settings.log_level, settings.log_format)
    import uvloop

    from hubbub.app import CannotStart, serve

    try:
        uvloop.run(serve(settings, announce=lambda url: _announce(url, settings)))
    except SettingsError as error:
        _fail(str(error), 2)
    except (CannotStart, ValueError) as error:
        _fail(str(error), 1)


def _announce(url: str, settings: Settings) -> None:
    typer.secho(f"Hubbub {__version__} is running: {url}", bold=True)
    if settings.dev:
        typer.echo("Open it in two tabs and be two people.")
        typer.echo("A token for your own client: hubbub token --user alice   (Ctrl-C ends)")
    sys.stdout.flush()


def _with_settings(function: Any) -> Any:
    """Give `function(**given)` a flag for every setting."""
    parameters = [
        inspect.Parameter(
            "app",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Annotated[Optional[str], typer.Argument(help=SETTINGS["app"].help, metavar="[MODULE:CHAT]")],  # noqa: UP045
        )
    ]
    for name, about in SETTINGS.items():
        if name == "app":
            continue
        kind = kind_of(name)
        hint: Any = str
        if kind == "true or false":
            hint = bool
        elif is_list(name):
            hint = list[str]
        flag = f"--{name.replace('_', '-')}"
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}" if hint is bool else flag,
            help=about.help,
            rich_help_panel=about.panel,
            show_default=False,
            metavar=None if hint is bool else kind.upper().split(" FROM")[0].replace("A ", "").replace(" ", "-"),
        )
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[Optional[hint], option],  # noqa: UP045
            )
        )
    parameters.append(inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Config))
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


app.command("serve")(_with_settings(_serve))


@app.command("token")
def _token(
    user: Annotated[str, typer.Option(help="The user's id: the token's sub.")],
    ttl: Annotated[str, typer.Option(help="How long it lasts: 90s, 15m, 1h, 7d.")] = "1h",
    name: Annotated[Optional[str], typer.Option(help="Name shown to others.")] = None,  # noqa: UP045
    avatar: Annotated[Optional[str], typer.Option(help="Address of a picture shown to others.")] = None,  # noqa: UP045
    room: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="A room that the token grants, as ROOM or ROOM=ROLE; several times for several.", metavar="ROOM[=ROLE]"
        ),
    ] = None,
    scope: Annotated[str, typer.Option(help="`server` for your backend's calls to /v1.")] = "",
    data: Annotated[Optional[str], typer.Option(help="Data folder with the development secret.")] = None,  # noqa: UP045
    config: _Config = None,
) -> None:
    """Issue a token, on the last line of standard output.

    It is signed with the secret of the settings, or with the one that `hubbub serve --dev` keeps in the data folder.

    [bold]hubbub token --user alice --room general=owner[/bold]

    [bold]hubbub token --user backend --scope server --ttl 30d[/bold]
    """
    import time

    from hubbub.auth import issue
    from hubbub.config import dev_secret

    settings = _load({"data": data}, config)
    try:
        if settings.secret or settings.secret_file:
            secret = read_keys(settings).secrets[0]
        else:
            secret = dev_secret(Path(settings.data), create=False) or ""
    except SettingsError as error:
        _fail(str(error), 2)
    if not secret:
        _fail(
            f"there is no secret to sign with: no HUBBUB_SECRET, and no development secret in {settings.data};\n"
            "run `hubbub serve --dev` here first, or set HUBBUB_SECRET",
            2,
        )
    granted = dict(part.partition("=")[::2] for part in room or [])
    try:
        token = issue(
            secret,
            user=user,
            ttl_s=_seconds(ttl),
            now_s=int(time.time()),
            name=name,
            avatar=avatar,
            rooms={room_id: role or "member" for room_id, role in granted.items()},
            scope=scope,
            audience=settings.audience,
            issuer=settings.issuer,
        )
    except ValueError as error:
        _fail(str(error), 2)
    typer.echo(f"A token for {user}, good for {ttl}:", err=True)
    typer.echo(token)


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)([smhd])", text)
    if match is None:
        raise ValueError(f"ttl: expected a number with s, m, h or d such as 90s, 15m, 1h or 7d, got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


@app.command("doctor")
def _doctor(**given: Any) -> None:
    """Look at settings, keys, store, port, clock and limits, and say what to do.

    Takes the same settings as `serve`. Ends with status 1 if something would keep the chat from working.
    """
    config = given.pop("config")
    import asyncio

    from hubbub.doctor import examine

    settings = _load(given, config)
    findings = asyncio.run(examine(settings))
    _print(findings)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("what")
    table.add_column("finding", overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for finding in findings:
        table.add_row(f"[{colours[finding.state]}]{finding.state}[/]", finding.what, finding.words)
    Console().print(table)


app.registered_commands[-1].callback = _with_settings(_doctor)


@app.command("version")
def _version() -> None:
    """Print the version."""
    typer.echo(f"hubbub {__version__}")


def main() -> None:
    """The console entry point."""
    app()
