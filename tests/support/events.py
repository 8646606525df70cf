# SPDX-License-Identifier: Apache-2.0
"""One event of each type, with text that means something to terminals and CI's runners."""

from __future__ import annotations

from surefoot.core import events as ev
from surefoot.core.environment import Deed, Frozen, Unfrozen
from surefoot.core.errors import Code, Failure
from surefoot.core.gates import Gate, Wait
from surefoot.core.plan import Command, Direction, Plan, Step
from surefoot.core.status import Status

EVIL = "[bold]x[/bold]\x1b[2J\r\n::error::owned\x07"
PLAN = Plan(project="p", environment="prod", steps=(Step("go", Command("true"), undo=Command("true")),))
FAILURE = Failure(Code.STEP_FAILED, f"it broke {EVIL}", hint="look, here: 100%", host="web-1", step="go")

SAMPLES: dict[type, ev.Event] = {
    type(event): event
    for event in (
        ev.Accepted("prod-1", "prod", 1, "2.0", PLAN, requested_by=EVIL, reason=EVIL),
        ev.Waiting((Wait(Gate.FREEZE, f"frozen {EVIL}", 2000.0),)),
        ev.ApprovalGiven(EVIL, EVIL, ("sre",)),
        ev.Rejected(EVIL, EVIL),
        ev.ApprovalExpired(),
        ev.Superseded("prod-2", EVIL),
        ev.LeaseGranted("b", 2, ("b chosen",), taken_from="a", waited_seconds=1.25),
        ev.HandedOver("the agent stops"),
        ev.PreflightPassed(("disk 80 %",)),
        ev.PreflightFailed(FAILURE),
        ev.FenceRaised(("web-1", "web-2")),
        ev.FenceFailed(FAILURE),
        ev.NotBegun(FAILURE),
        ev.StepStarted("go", Direction.FORWARD, 2),
        ev.StepSucceeded("go", Direction.FORWARD, 1, 3),
        ev.StepFailed("go", Direction.UNDO, 1, FAILURE),
        ev.StepInterrupted("go", Direction.FORWARD, 1, "cancelled"),
        ev.HealthPassed(Direction.FORWARD, 1),
        ev.HealthFailed(Direction.FORWARD, FAILURE),
        ev.VersionsRecorded(Direction.FORWARD, "2.0", ("web-1",)),
        ev.VersionsMixed(Direction.FORWARD, FAILURE),
        ev.VersionsSurveyed({"web-1": "1.0", "web-2": None}, {"web-3": EVIL}),
        ev.BakeStarted(600.0),
        ev.BakePassed(),
        ev.BakeFailed(FAILURE),
        ev.CancelRequested(EVIL, "wrong branch"),
        ev.UndoStarted(FAILURE),
        ev.Finished(Status.STRANDED, FAILURE),
        ev.ResolveRequested("me", "repaired"),
        ev.ResolveRefused(FAILURE),
        ev.Resolved("1.0", unchecked=True),
        ev.Delivered("github-issue", 9, "issue opened", "https://github.invalid/o/r/issues/1", "1"),
        ev.DeliveryFailed("github-issue", 9, FAILURE, tries=3, given_up=True),
    )
}
DEEDS: tuple[Deed, ...] = (Frozen("ann", EVIL, until=2000.0), Unfrozen("ann", EVIL))
