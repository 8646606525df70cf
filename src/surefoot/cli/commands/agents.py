# SPDX-License-Identifier: Apache-2.0
"""Agents: run one, see all, take one out of service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from surefoot.cli.lazy import Command, LazyGroup, command
from surefoot.cli.params import TEXT, log_format

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.core.lease import Role


@command("agents", example="surefoot agents\nsurefoot agents --output json")
@click.pass_context
def agents(ctx: click.Context) -> None:
    """Show all agents.

    How they are, what they run, and why one takes no work.
    """
    from surefoot.cli.app import SILENT, App
    from surefoot.cli.text import ago
    from surefoot.core.views import rfc3339

    app = App.of(ctx)
    with app.reading() as store:
        rows = store.agents(SILENT)
        if app.json:
            app.console.document(
                {
                    "agents": [
                        {
                            "name": row.report.name,
                            "role": str(row.report.role),
                            "status": str(row.status),
                            "last_seen_at": rfc3339(row.last_seen_at),
                            "cpu_percent": row.report.cpu_percent,
                            "memory_percent": row.report.memory_percent,
                            "disk_percent": row.report.disk_percent,
                            "running": row.report.running,
                            "reason": row.reason or None,
                        }
                        for row in rows
                    ]
                }
            )
        elif not rows and not app.has_agents:
            app.console.print("No agent is at work. The config names none: deploy runs its own.")
        elif not rows:
            name = next(iter(app.agent_names), "NAME")
            app.console.print(f"No agent has ever reported. Start one: surefoot agent run {name}")
        else:
            now = store.now()
            app.console.table(
                ("NAME", "ROLE", "STATUS", "SEEN", "CPU", "MEMORY", "DISK", "RUNNING", "REASON"),
                [
                    (
                        row.report.name,
                        row.report.role,
                        row.status,
                        ago(row.last_seen_at, now),
                        f"{row.report.cpu_percent:.0f} %",
                        f"{row.report.memory_percent:.0f} %",
                        f"{row.report.disk_percent:.0f} %",
                        row.report.running or "-",
                        row.reason or "-",
                    )
                    for row in rows
                ],
            )


@click.command("agent", cls=LazyGroup, example="surefoot agent run production-runner-01")
@click.pass_context
def agent(ctx: click.Context) -> None:
    """Run an agent, or take one out of service."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command("run", example="surefoot agent run production-runner-01\nsurefoot agent run my-laptop --role emergency --once")
@click.argument("name", type=TEXT)
@click.option("--role", type=click.Choice(["primary", "secondary", "emergency"]), help="Instead of the config's.")
@click.option("--once", is_flag=True, help="End when there is no work left.")
@log_format
@click.pass_context
def run(ctx: click.Context, name: str, role: str | None, once: bool, log_format: str | None) -> None:
    """Run an agent in this process.

    SIGTERM ends it: it stops its step and hands its deployment over first.

    A name that is not in the config may only run with --role emergency.
    """
    import os
    import signal
    import threading

    # Before all else: whoever stops an agent that is still starting gets a good end, too.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())

    from surefoot.agent.service import AgentOptions, run_agent
    from surefoot.cli.app import App
    from surefoot.cli.log import Log, form
    from surefoot.cli.who import BACKGROUND
    from surefoot.core.errors import SurefootError
    from surefoot.core.notes import Level, Note

    app = App.of(ctx)
    how = form(log_format, os.environ)
    limits, prometheus = app.gate_of_runners()
    passing = once and name not in app.agent_names
    background = passing and name.endswith(BACKGROUND)
    options = AgentOptions(
        name=name,
        role=_role(app, name, role),
        preference=app.agent_names.index(name) if name in app.agent_names else len(app.agent_names),
        ttl=app.lease_ttl,
        state=app.state_folder,
        once=once,
        limits=limits,
        prometheus=prometheus,
        passing=passing,
        patient=background,
        spare=background,
    )

    log = Log("surefoot-agent", how, agent=name)
    log(Note(f"agent {name} ({options.role}) runs; SIGTERM ends it", "agent_started"))
    try:
        run_agent(options, app.store_url, stop=stop, log=log)
    except SurefootError as error:
        log(Note(f"agent {name} ends: {error.message}", "agent_ended", Level.ERROR, fields={"code": str(error.code)}))
        raise
    log(Note(f"agent {name} has ended", "agent_ended"))


def _role(app: App, name: str, given: str | None) -> Role:
    """Return the role that an agent may run with."""
    from surefoot.cli.text import did_you_mean
    from surefoot.core.errors import Code, NotFoundError, UsageError
    from surefoot.core.lease import Role

    if not name or not name.isprintable() or "/" in name or name.startswith(".") or len(name) > 200:
        raise UsageError(f"{name[:60]!r} can't be an agent's name", hint="use letters, digits, dots and dashes")
    if name in app.agent_names:
        return Role(given) if given else Role(app.config.agents[name].role)
    if given == Role.EMERGENCY:
        return Role.EMERGENCY
    raise NotFoundError(
        f"there is no agent {name!r} in the config",
        code=Code.AGENT_UNKNOWN,
        hint=did_you_mean(name, app.agent_names)
        or f"add it under agents, or: surefoot agent run {name} --role emergency",
    )


def _drain(name: str, *, draining: bool, example: str, doc: str) -> Command:
    """Return the command that sets or takes back an agent's drain."""

    @command(name, example=example, help=doc)
    @click.argument("agent_name", metavar="NAME", type=TEXT)
    @click.pass_context
    def set_drain(ctx: click.Context, agent_name: str) -> None:
        from surefoot.cli.app import App
        from surefoot.cli.text import clean

        app = App.of(ctx)
        with app.writing(existing=True) as store:
            store.set_drain(agent_name, draining)
        if app.json:
            app.console.document({"name": agent_name, "draining": draining})
        else:
            what = "takes no more work" if draining else "takes work again"
            app.console.print(f"{clean(agent_name)} {what}")

    return set_drain


agent.add_command(run)
agent.add_command(
    _drain(
        "drain",
        draining=True,
        example="surefoot agent drain production-runner-01",
        doc="Have an agent take no more work.\n\n"
        "What it runs goes to another agent after the step in flight; without another, it finishes it.",
    )
)
agent.add_command(
    _drain(
        "undrain",
        draining=False,
        example="surefoot agent undrain production-runner-01",
        doc="Have an agent take work again.",
    )
)
