# SPDX-License-Identifier: Apache-2.0
"""What a failure's code means, what usually causes it, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from surefoot.cli.lazy import command
from surefoot.cli.params import TEXT

if TYPE_CHECKING:
    from surefoot.cli.app import App
    from surefoot.core.errors import Code


@command("explain", example="surefoot explain SF-HOST-AUTH\nsurefoot explain --list")
@click.argument("code", type=TEXT, required=False)
@click.option("--list", "listing", is_flag=True, help="All codes, with what each means.")
@click.pass_context
def explain(ctx: click.Context, code: str | None, *, listing: bool) -> None:
    """Explain the code of a failure.

    What it means, what usually causes it, what to do. The SF- may be left out.
    """
    from surefoot.cli.app import App
    from surefoot.core.codes import ADVICE, document
    from surefoot.core.errors import Code, UsageError

    if (code is None) is not listing:
        raise UsageError("explain takes a code, or --list", hint="surefoot explain SF-HOST-AUTH")
    app = App.of(ctx)
    if code is not None:
        found = _known(code)
        if app.json:
            app.console.document(document(found))
        else:
            _tell(app, found)
    elif app.json:
        app.console.document({"codes": [document(each) for each in Code]})
    else:
        app.console.table(("CODE", "MEANS"), [(each, ADVICE[each].means) for each in Code])


def _known(text: str) -> Code:
    from surefoot.cli.text import did_you_mean
    from surefoot.core.errors import Code, NotFoundError

    wanted = text.strip().upper().replace("_", "-")
    wanted = wanted if wanted.startswith("SF-") else f"SF-{wanted}"
    try:
        return Code(wanted)
    except ValueError:
        hint = did_you_mean(wanted, [str(code) for code in Code]) or "surefoot explain --list"
        raise NotFoundError(f"there is no code {text[:60]!r}", code=Code.CODE_UNKNOWN, hint=hint) from None


def _tell(app: App, code: Code) -> None:
    from surefoot.core.codes import ADVICE

    advice, say = ADVICE[code], app.console.print
    say(f"{code}: {advice.means}")
    for title, lines in (("usual causes", advice.causes), ("what to do", advice.mend)):
        say(f"\n{title}:")
        for line in lines:
            say(f"  - {line.replace('`', '')}")
    if advice.runbook:
        say(f"\nrunbook: docs/runbooks/{advice.runbook}.md")
