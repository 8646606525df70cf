# SPDX-License-Identifier: Apache-2.0
"""From a request to resolve a stranded environment to the answer that an agent gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surefoot.api.follow import Follower
from surefoot.cli.errors import write_error
from surefoot.cli.following import warn_if_alone, watch
from surefoot.cli.own_agent import OwnAgent, leave_nothing
from surefoot.cli.text import clean
from surefoot.cli.views.base import view_for
from surefoot.core.errors import Exit

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.core.deployment import Deployment
    from surefoot.store.protocol import Store


def see_resolved(app: App, store: Store, state: Deployment) -> int:
    """Wait until the request is answered; return the exit code of the answer."""
    if state.resolve is not None:
        state = _answered(app, store, state)
    if state.resolved is not None:
        leave_nothing(app, store)
    if app.json:
        app.console.document(app.shown(store, state))
    if state.resolved is not None:
        if not app.json:
            runs = state.resolved.version or "no version"
            app.console.print(clean(f"{state.environment} is resolved and runs {runs}"))
        return Exit.DONE
    assert state.resolve_refused is not None
    refused = state.resolve_refused
    hint = refused.hint or f"repair it and resolve again, or: surefoot resolve {state.id} --unchecked --reason TEXT"
    write_error(refused.code, f"{state.environment} is not repaired: {refused.message}", hint)
    return Exit.REFUSED


def _answered(app: App, store: Store, asked: Deployment) -> Deployment:
    agent = None if app.has_agents else OwnAgent(app, until=asked.id)
    view = view_for(app.console)
    try:
        if agent is None:
            warn_if_alone(app, store)
            check = _nothing
        else:
            agent.start()
            check = agent.check
        follower = Follower(store, asked.id, log=False, after=asked.seq - 1)
        return watch(follower, view, check, until=lambda state: state.resolve is None)
    finally:
        view.close()
        if agent is not None:
            agent.stop()


def _nothing() -> None:
    """Check nothing: agents elsewhere do the work."""
