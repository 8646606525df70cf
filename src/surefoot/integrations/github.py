# SPDX-License-Identifier: Apache-2.0
"""GitHub's REST API for one repository, opened by a token or as a GitHub App."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote

from surefoot.core.errors import Code
from surefoot.core.targets import GitHubAccess
from surefoot.integrations import http
from surefoot.integrations.delivery import NotDelivered

API_VERSION = "2022-11-28"
#: What a page holds at most.
PAGE = 100
#: Pages read while something is looked for: more came after it than any repository sees in a day.
PAGES = 10
#: Seconds that an App's own token lives, and by how much clocks may differ.
APP_TOKEN_LIFE, CLOCK_SKEW = 540, 60


class GitHub:
    """Requests to one repository. Made for one delivery: a token that was renewed is used by the next one."""

    def __init__(self, access: GitHubAccess, reveal: Callable[[str], str]) -> None:
        """`reveal` fills the secrets in."""
        self._access = access
        self._reveal = reveal
        self._token = ""
        owner, _, name = access.repository.partition("/")
        self._repository = f"/repos/{quote(owner, safe='')}/{quote(name, safe='')}"

    async def get(self, path: str, **query: str) -> http.Answer:
        """Read something of the repository."""
        return await self._ask("GET", self._repository + path, query=query)

    async def send(self, method: str, path: str, json: Any, *, allow: tuple[int, ...] = ()) -> http.Answer:
        """Write something to the repository."""
        return await self._ask(method, self._repository + path, json=json, allow=allow)

    async def pages(self, path: str, **query: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the items of a list, page by page."""
        for page in range(1, PAGES + 1):
            answer = await self.get(path, per_page=str(PAGE), page=str(page), **query)
            items = answer.json()
            if not isinstance(items, list):
                raise NotDelivered("GitHub answered with something else than a list")
            for item in items:
                yield item
            if len(items) < PAGE:
                return

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        allow: tuple[int, ...] = (),
    ) -> http.Answer:
        if not self._token:
            self._token = await self._credentials()
        return await self._raw(method, path, self._token, query=query, json=json, allow=allow)

    async def _raw(
        self,
        method: str,
        path: str,
        token: str,
        *,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        allow: tuple[int, ...] = (),
    ) -> http.Answer:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": API_VERSION,
        }
        url = self._access.api.rstrip("/") + path
        return await http.request(
            method, url, who="GitHub", headers=headers, query=query or None, json=json, allow=allow
        )

    async def _credentials(self) -> str:
        access = self._access
        if access.token:
            return self._reveal(access.token).strip()
        own = _app_token(self._reveal(access.app_id).strip(), self._reveal(access.private_key))
        found = (await self._raw("GET", f"{self._repository}/installation", own)).json()
        path = f"/app/installations/{int(found['id'])}/access_tokens"
        name = access.repository.partition("/")[2]
        made = (await self._raw("POST", path, own, json={"repositories": [name]})).json()
        return str(made["token"])


def _app_token(app_id: str, private_key: str) -> str:
    """Return the token by which an App says who it is."""
    import jwt

    now = int(time.time())
    claims = {"iat": now - CLOCK_SKEW, "exp": now + APP_TOKEN_LIFE, "iss": app_id}
    try:
        return jwt.encode(claims, private_key, algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError):
        raise NotDelivered(
            "the GitHub App's private key is none that can be read",
            code=Code.DELIVERY_REFUSED,
            hint="put the whole PEM file, with its line breaks, into the secret",
        ) from None
