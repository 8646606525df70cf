# SPDX-License-Identifier: Apache-2.0
"""Monitoring: the metrics endpoint, and what Prometheus, Alertmanager and Grafana are given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from surefoot.cli.lazy import LazyGroup, command
from surefoot.cli.params import TEXT, log_format

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.monitoring.runner import Target
    from surefoot.store.protocol import Store

_FILE = click.Path(dir_okay=False, path_type=Path)


@command(
    "exporter",
    example="surefoot exporter --service 'actions.runner.*.service'\n"
    "surefoot exporter --listen 127.0.0.1:9101 --runner production-runner-01 --role primary",
)
@click.option("--listen", metavar="ADDR:PORT", default=":9100", show_default=True, help="Where to serve /metrics.")
@click.option("--runner", metavar="NAME", type=TEXT, help="This runner's name. Default: the host's name.")
@click.option(
    "--role", type=click.Choice(["primary", "secondary", "emergency"]), help="Its role. Default: what the config says."
)
@click.option(
    "--service", metavar="UNIT", multiple=True, help="The CI runner's systemd unit; may be a pattern; repeatable."
)
@click.option("--process", metavar="REGEX", multiple=True, help="Or its processes, by their command lines; repeatable.")
@click.option("--disk", metavar="PATH", type=click.Path(path_type=Path), default=Path("/"), help="The disk to watch.")
@click.option(
    "--host", "hosts", metavar="NAME=ADDR:PORT", multiple=True, help="A host to reach, beside the inventories'."
)
@click.option("--secret", "secrets", metavar="NAME", multiple=True, help="A secret to watch, beside the config's.")
@click.option("--web-config", metavar="FILE", type=_FILE, help="TLS and basic auth, as Prometheus's exporters have it.")
@log_format
@click.pass_context
def exporter(  # noqa: PLR0917 - click passes by name
    ctx: click.Context,
    listen: str,
    runner: str | None,
    role: str | None,
    service: tuple[str, ...],
    process: tuple[str, ...],
    disk: Path,
    hosts: tuple[str, ...],
    secrets: tuple[str, ...],
    web_config: Path | None,
    log_format: str | None,
) -> None:
    """Serve metrics to Prometheus.

    Of this runner (the machine, the CI runner's own service, what it can reach, its secrets) and of all deployments in
    the store. SIGTERM ends it.
    """
    import asyncio
    import os
    import socket

    from surefoot.cli.app import App
    from surefoot.cli.log import Log, form
    from surefoot.core.lease import Role
    from surefoot.monitoring.exporter import Exporter, Runner, address, prepare_process
    from surefoot.monitoring.following import Following
    from surefoot.monitoring.runner import Service, Watch
    from surefoot.monitoring.subjects import Hosts, Secrets

    app = App.of(ctx)
    how = form(log_format, os.environ)
    _patterns(process)
    where = address(listen)
    config = app.config if app.config_path is not None else None
    name = runner or _hosts_name(socket.gethostname(), app.agent_names)
    named = config.agents.get(name) if config is not None else None
    me = Runner(name, role or str(named.role if named is not None else Role.PRIMARY), Service(service, process))
    note = Log("surefoot-exporter", how, runner=name)
    found_hosts, found_secrets = Hosts(config, [_target(text) for text in hosts]), Secrets(config, secrets)
    app.store_url  # noqa: B018 - says now, not in the background, that no store is named
    watch = Watch(
        service=me.service,
        disk=disk,
        targets=found_hosts,
        judge=found_secrets if found_secrets.any else None,
        note=note,
    )
    environments = config.environments if config is not None else {}
    known = {name: [step.name for step in one.steps] for name, one in environments.items()}
    following = Following(lambda: _open(app), known=known, note=note)
    exporter = Exporter(where, me, watch, following, web_config=web_config, note=note)
    prepare_process()
    asyncio.run(exporter.run())


def _hosts_name(hostname: str, agents: tuple[str, ...]) -> str:
    """Return the agent that is called like this host, with or without its domain; else the host's own name."""
    short = hostname.partition(".")[0]
    return next((name for name in (hostname, short) if name in agents), short)


def _open(app: App) -> Store | None:
    from surefoot.core.errors import Code, StoreError
    from surefoot.store import open_store

    if app.never_written:
        return None
    try:
        return open_store(app.store_url, read_only=True)
    except StoreError as error:
        if error.code is not Code.STORE_READ_ONLY:
            raise
        return open_store(app.store_url)  # its schema has to be made or upgraded first, as every command does


def _patterns(patterns: tuple[str, ...]) -> None:
    import re

    from surefoot.core.errors import UsageError

    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(
                f"{pattern!r} is no regular expression: {error}", hint="as in --process Runner.Listener"
            ) from None


def _target(text: str) -> Target:
    from surefoot.core.errors import UsageError
    from surefoot.monitoring.runner import Target

    name, separator, address = text.partition("=")
    host, colon, port = address.rpartition(":")
    if not (separator and name and colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise UsageError(f"{text!r} is no host", hint="as in --host web-1=10.0.0.11:22")
    return Target("", name, host, int(port))


@click.command("monitoring", cls=LazyGroup, example="surefoot monitoring render --out monitoring")
@click.pass_context
def monitoring(ctx: click.Context) -> None:
    """Write what Prometheus, Alertmanager and Grafana need."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command(
    "render",
    example="surefoot monitoring render --out monitoring\n"
    "surefoot monitoring render --out drill --scale 0.01 --pager http://127.0.0.1:8080/page",
)
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where to.")
@click.option(
    "--scale",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiplies all durations in rules and routes, for drills that can't wait: 0.01 makes 3 s of 5 minutes.",
)
@click.option("--job", metavar="NAME", type=TEXT, default="surefoot", show_default=True, help="The scrape job's name.")
@click.option("--port", type=click.IntRange(1, 65535), default=9100, show_default=True, help="The exporters' port.")
@click.option(
    "--runbooks",
    metavar="URL",
    type=TEXT,
    default="docs/runbooks",
    show_default=True,
    help="Where the runbooks are; {name} in it is filled in, else NAME.md is added.",
)
@click.option("--grafana", metavar="URL", type=TEXT, default="", help="Where Grafana is, for links to dashboards.")
@click.option("--team", metavar="URL", type=TEXT, default="", help="A webhook for what does not page.")
@click.option("--pager", metavar="URL", type=TEXT, default="", help="A webhook for what pages.")
@click.pass_context
def render(
    ctx: click.Context,
    *,
    out: Path,
    scale: float,
    job: str,
    port: int,
    runbooks: str,
    grafana: str,
    team: str,
    pager: str,
) -> None:
    """Write alert rules, routes and dashboards.

    Recording and alert rules and a scrape job for Prometheus, routes for Alertmanager, dashboards for Grafana. Names
    and roles of runners are the config's; without agents in it, every runner that was seen within a day counts.
    """
    from surefoot.cli.app import App
    from surefoot.core.errors import UsageError
    from surefoot.monitoring import rendering
    from surefoot.monitoring.alerts import Scale

    app = App.of(ctx)
    for option, url in (("--grafana", grafana), ("--team", team), ("--pager", pager)):
        if url and not url.startswith(("http://", "https://")):
            raise UsageError(f"{option} {url!r} is no URL", hint=f"as in {option} https://example.com")
    agents = app.config.agents if app.config_path is not None else {}
    runners = rendering.named([(name, str(agent.role)) for name, agent in agents.items()])
    options = rendering.Options(runners, Scale(scale), job, port, runbooks, grafana, team, pager)
    try:
        written = rendering.write(options, out)
    except OSError as error:
        raise UsageError(f"{out} can't be written: {error.strerror}", hint="name another with --out") from error
    if app.json:
        app.console.document({"files": [str(path) for path in written]})
    else:
        for path in written:
            app.console.print(str(path))


monitoring.add_command(render)
