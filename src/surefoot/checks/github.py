# SPDX-License-Identifier: Apache-2.0
"""GitHub's REST API, as far as checks read it.

Guarantees: it only reads; what GitHub says instead is a failure with a sentence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import Field

from surefoot import __version__
from surefoot.checks.asking import Asking, asked, json_of, quoted, read
from surefoot.checks.model import CheckFailed, CheckOptions, Context
from surefoot.config.fields import Duration, Repository, SecretReference, WebAddress

API_VERSION = "2022-11-28"
#: Bytes of an answer: a page of check runs may be long.
LONGEST = 16 * 1024 * 1024
PAGE, PAGES = 100, 10


class GitHubOptions(CheckOptions):
    """What opens a repository."""

    repository: Repository | None = Field(default=None, description="The repository on GitHub, as `owner/name`.")
    token: SecretReference = Field(default="", description="A token that may read it; public ones need none.")
    api: WebAddress = Field(default="https://api.github.com", description="Its API; GitHub Enterprise has its own.")
    timeout: Duration = Field(default=20.0, description="For all of it.")


class GitHub:
    """Reads one repository for one check."""

    def __init__(self, options: GitHubOptions, context: Context) -> None:
        """CheckFailed if the token is not set."""
        assert options.repository is not None, "its options hold that"
        self.repository = options.repository
        self._options = options
        self._token = context.secret(options.token)

    async def get(self, path: str, **query: str) -> Any:
        """Return what there is; None if there is no such thing."""
        owner, _, name = self.repository.partition("/")
        base = f"{self._options.api.rstrip('/')}/repos/{quote(owner, safe='')}/{quote(name, safe='')}"
        url = f"{base}{path}{'?' if query else ''}{urlencode(query)}"
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": API_VERSION,
            "User-Agent": f"surefoot/{__version__}",
        } | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        async with asked(url, Asking("GitHub", self._options.timeout, headers=headers, outside=True)) as answer:
            status, limits, body = answer.status, answer.headers.copy(), await read(answer, LONGEST)
        try:
            told = json_of(body)
        except ValueError:
            told = None
        if status == 200 and isinstance(told, Mapping):
            return told
        if status == 404:
            return None
        said = told.get("message") if isinstance(told, Mapping) else body.decode("utf-8", "replace")
        raise self._refused(status, limits, said)

    async def pages(self, path: str, key: str, **query: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the items of a list, page by page."""
        for page in range(1, PAGES + 1):
            told = await self.get(path, per_page=str(PAGE), page=str(page), **query)
            items = told.get(key) if told is not None else []
            if not isinstance(items, list):
                raise CheckFailed("GitHub does not answer as it should")
            for item in items:
                if isinstance(item, Mapping):
                    yield item
            if len(items) < PAGE:
                return

    def _refused(self, status: int, headers: Mapping[str, str], said: Any) -> CheckFailed:
        words = quoted(str(said or ""))
        if status in (403, 429) and (headers.get("X-RateLimit-Remaining") == "0" or "Retry-After" in headers):
            return CheckFailed(f"GitHub limits requests ({status}){words}", "wait; with a token there may be more")
        if status in (401, 403):
            return CheckFailed(
                f"GitHub does not show {self.repository} ({status}){words}",
                "give token: ${NAME} of a token that may read its contents, checks and actions",
            )
        return CheckFailed(f"GitHub answered {status}{words}", "see www.githubstatus.com, and try again")
