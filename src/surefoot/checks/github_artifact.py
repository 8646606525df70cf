# SPDX-License-Identifier: Apache-2.0
"""`github_artifact`: what a GitHub Actions run has built is still there to be deployed.

Guarantees: an artifact counts only if it was built from the deployment's commit (or the one that is named), and has not
expired.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from surefoot.checks.expiry import expires
from surefoot.checks.git import commit_of, short
from surefoot.checks.github import GitHub, GitHubOptions
from surefoot.checks.model import CheckFailed, CheckWarned, Context, Kind, excerpt
from surefoot.checks.values import size
from surefoot.config.fields import Pause, Text, refuse
from surefoot.core.errors import Code


class GithubArtifactOptions(GitHubOptions):
    """Options of `github_artifact`."""

    name: Text = Field(description="The artifact's name, as in `backend-{version}`.")
    commit: Text = Field(
        default="{commit}",
        description="The whole SHA of the commit that it was built from. Default: the deployment's.",
    )
    warn_before: Pause = Field(default=86400.0, description="Warns when it expires within this time.")

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.repository is None:
            raise refuse("needs repository", hint="as in repository: owner/name", code=Code.CONFIG_KEY)
        return self


class GithubArtifact(Kind):
    """See the module's docstring."""

    name: ClassVar = "github_artifact"
    options: ClassVar = GithubArtifactOptions

    async def probe(self, options: GithubArtifactOptions, context: Context) -> str:
        """Look for the newest of that name and commit."""
        name, commit = context.address(options.name), commit_of(options.commit, context)
        github = GitHub(options, context)
        others = 0
        async for one in github.pages("/actions/artifacts", "artifacts", name=name):
            run = one.get("workflow_run")
            if not isinstance(run, dict) or run.get("head_sha") != commit:
                others += 1
                continue
            return _judged(one, name, commit, options)
        more = f" (there are {others} of other commits)" if others else ""
        raise CheckFailed(
            f"{github.repository} has no artifact {excerpt(name)} of {short(commit)}{more}",
            "see that its workflow ran for this commit, and uploads it under this name",
        )


def _judged(one: Any, name: str, commit: str, options: GithubArtifactOptions) -> str:
    said = f"the artifact {excerpt(name)} of {short(commit)}"
    again = "run its workflow for this commit again"
    if one.get("expired") is True:
        raise CheckFailed(f"{said} has expired", again)
    length = one.get("size_in_bytes")
    told = f"{said} is there{f', {size(length)}' if isinstance(length, int) else ''}"
    try:
        end = datetime.fromisoformat(str(one.get("expires_at"))).timestamp()
    except ValueError:
        return told
    if end <= time.time():
        raise CheckFailed(f"{said} {expires(end)}", again)
    if end - time.time() <= options.warn_before:
        raise CheckWarned(f"{said} {expires(end)}", again)
    return told
