# SPDX-License-Identifier: Apache-2.0
"""From a request to resolve a stranded environment to the answer that an agent gives."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING

from surefoot.api.follow import Follower
from surefoot.cli.errors import write_error
from surefoot.cli.following import warn_if_alone, watch
from surefoot.cli.own_agent import agent_for, leave_nothing
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
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C does it, so that somebody else gives the answer
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, signal.default_int_handler)
    with agent_for(app, asked.id) as agent, closing(view_for(app.console)) as view:
        if agent is None:
            warn_if_alone(app, store)
        follower = Follower(store, asked.id, log=False, after=asked.seq - 1)
        check = agent.lives if agent is not None else _others_live
        return watch(follower, view, check, until=lambda state: state.resolve is None)


def _others_live() -> bool:
    """Agents elsewhere do the work, whether anybody waits for it or not."""
    return False
