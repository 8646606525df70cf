# SPDX-License-Identifier: Apache-2.0
"""`git`: the commit to be deployed is on its branch, which is protected, and CI has passed it.

Guarantees: a commit counts as on the branch only if the branch has it now, on the server. What CI says counts as passed
only when all of it has ended: a check that still runs fails.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from shlex import quote as sh_quote
from typing import Annotated, ClassVar, Self
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from surefoot.checks.github import GitHub, GitHubOptions
from surefoot.checks.model import CheckFailed, Context, Kind, excerpt
from surefoot.config.fields import Text, Truth, refuse
from surefoot.core.errors import Code

#: What a check run may have come to and still be no objection.
_FINE = ("success", "neutral", "skipped")
_COMMIT = re.compile(r"[A-Za-z0-9][\w./+~@=-]*", re.ASCII)


def _branch(value: str) -> str:
    if not re.fullmatch(r"[\w{][\w./{}-]*", value, re.ASCII) or ".." in value:
        raise refuse("can't be a branch", hint="as in branch: main")
    return value


class GitOptions(GitHubOptions):
    """Options of `git`."""

    branch: Annotated[Text, AfterValidator(_branch)] = Field(default="main", description="The branch.")
    commit: Text = Field(
        default="{commit}", description="The commit, or a tag. Default: the one that the deployment was asked for with."
    )
    remote: Text = Field(
        default="", description="The repository as git reaches it from the agent, where it is not on GitHub."
    )
    protected: Truth = Field(default=False, description="Whether the branch must be protected (GitHub).")
    ci: Truth | list[Text] = Field(
        default=False, description="Whether CI must have passed the commit: all of its checks, or those named (GitHub)."
    )
    ci_except: list[Text] = Field(
        default_factory=list, description="Checks that don't matter, such as the job that deploys."
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if (self.repository is None) == (not self.remote):
            raise refuse(
                "needs repository (on GitHub) or remote", hint="as in repository: owner/name", code=Code.CONFIG_KEY
            )
        if self.remote and (self.protected or self.ci):
            raise refuse("protected and ci need repository, on GitHub", hint="as in repository: owner/name")
        if self.remote.startswith("-"):
            raise refuse("can't be a remote", hint="as in remote: git@git.example:shop.git")
        return self


def commit_of(option: str, context: Context) -> str:
    """Return the commit that an option names; CheckFailed if it names none, as the deployment's may be."""
    if commit := context.address(option):
        return commit
    raise CheckFailed(
        "the commit of this deployment is not known",
        "ask for the deployment in a git work tree or in CI, or give commit",
    )


class Git(Kind):
    """See the module's docstring."""

    name: ClassVar = "git"
    options: ClassVar = GitOptions

    async def probe(self, options: GitOptions, context: Context) -> str:
        """Ask the server."""
        branch, commit = context.address(options.branch), commit_of(options.commit, context)
        if not _COMMIT.fullmatch(commit):
            raise CheckFailed(f"{excerpt(commit)} can't be a commit")
        if options.remote:
            return await _by_git(options, context, branch, commit)
        github = GitHub(options, context)
        await _on_branch(github, branch, commit, protected=options.protected)
        said = f"{short(commit)} is on {branch} of {github.repository}"
        if not options.ci:
            return said
        count = await _passed(github, commit, options)
        return f"{said}, and CI has passed it ({count} {'check' if count == 1 else 'checks'})"


def short(commit: str) -> str:
    """Return a commit as people name it."""
    return commit[:12] if re.fullmatch(r"[0-9a-f]{40,64}", commit) else commit


async def _on_branch(github: GitHub, branch: str, commit: str, *, protected: bool) -> None:
    found = await github.get(f"/branches/{quote(branch, safe='')}")
    if found is None:
        raise CheckFailed(f"{github.repository} has no branch {branch}, or the token does not show it")
    if protected and found.get("protected") is not True:
        raise CheckFailed(
            f"{branch} of {github.repository} is not protected", "protect it: Settings, Branches, or a ruleset"
        )
    base, head = quote(branch, safe=""), quote(commit, safe="")
    compared = await github.get(f"/compare/{base}...{head}", per_page="1")
    if compared is None:
        raise CheckFailed(f"{github.repository} has no commit {short(commit)}", "push it first")
    if compared.get("status") not in ("behind", "identical"):
        ahead = compared.get("ahead_by")
        more = f" ({ahead} commits are not)" if isinstance(ahead, int) and ahead > 1 else ""
        raise CheckFailed(
            f"{short(commit)} is not on {branch} of {github.repository}{more}", f"merge it into {branch} first"
        )


async def _passed(github: GitHub, commit: str, options: GitOptions) -> int:
    """Return how many checks have passed a commit; CheckFailed unless all that matter have."""
    wanted = options.ci if isinstance(options.ci, list) else None
    found: dict[str, str] = {}
    async for name, outcome in _checks(github, commit):
        if name not in options.ci_except and (wanted is None or name in wanted):
            found.setdefault(name, outcome)
    if missing := [name for name in wanted or () if name not in found]:
        raise CheckFailed(f"CI has not checked {short(commit)} by {', '.join(map(excerpt, missing))}", "wait for CI")
    if not found:
        raise CheckFailed(f"CI has not checked {short(commit)} at all", "see that CI runs for it, or leave ci out")
    for state, hint in (("failed", "repair it, and deploy what CI passes"), ("running", "wait for CI to end")):
        if bad := [name for name, outcome in found.items() if outcome == state]:
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            verb = "have" if len(bad) > 1 else "has"
            what = f"{verb} not passed" if state == "failed" else f"{verb} not ended"
            raise CheckFailed(f"{', '.join(map(excerpt, bad[:3]))}{more} {what} for {short(commit)}", hint)
    return len(found)


async def _checks(github: GitHub, commit: str) -> AsyncIterator[tuple[str, str]]:
    """Yield each check of a commit, new ones and old ones (statuses), and what it came to: the newest first."""
    at = f"/commits/{quote(commit, safe='')}"
    async for run in github.pages(f"{at}/check-runs", "check_runs", filter="latest"):
        ended = run.get("status") == "completed"
        yield str(run.get("name")), ("passed" if run.get("conclusion") in _FINE else "failed") if ended else "running"
    states = {"success": "passed", "pending": "running"}
    async for status in github.pages(f"{at}/status", "statuses"):
        yield str(status.get("context")), states.get(str(status.get("state")), "failed")


async def _by_git(options: GitOptions, context: Context, branch: str, commit: str) -> str:
    """Fetch the branch's history, without any files, and look whether the commit is in it."""
    remote = context.fill(options.remote)
    script = f"""
    d=$(mktemp -d) || exit 1; trap 'rm -rf "$d"' EXIT
    export GIT_TERMINAL_PROMPT=0 GIT_SSH_COMMAND="${{GIT_SSH_COMMAND:-ssh -o BatchMode=yes}}"
    git init -q --bare "$d" && cd "$d" && git remote add origin {sh_quote(remote)} || exit 1
    said=$(git fetch -q --filter=tree:0 origin {sh_quote(f"+refs/heads/{branch}:refs/heads/branch")} \
        "+refs/tags/*:refs/tags/*" 2>&1) || {{ echo "fetch=$said"; exit 0; }}
    c=$(git rev-parse -q --verify {sh_quote(commit + "^{commit}")} 2>/dev/null) || {{ echo unknown; exit 0; }}
    if git merge-base --is-ancestor "$c" refs/heads/branch; then echo "on=$c"; else echo off; fi
    """
    result = await context.here(script, options.timeout)
    where = f"{branch} of {_plain(remote)}"
    match result.output.strip().partition("="):
        case ("on", "=", found) if re.fullmatch(r"[0-9a-f]{40,64}", found):
            return f"{short(commit)} is on {where}"
        case ("off" | "unknown", "", ""):
            raise CheckFailed(f"{short(commit)} is not on {where}", f"merge it into {branch} and push that first")
        case ("fetch", "=", said):
            raise CheckFailed(f"{where} can't be fetched: {excerpt(_plain(said))}", "see that the agent may read it")
        case _:
            said = f": {excerpt(result.output)}" if result.output.strip() else ""
            raise CheckFailed(f"{where} can't be looked at{said}", "see that git is installed where the agent runs")


def _plain(text: str) -> str:
    """Return a text without users and passwords in URLs."""
    return re.sub(r"://[^/@\s]*@", "://", text)
