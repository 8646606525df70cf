# SPDX-License-Identifier: Apache-2.0
"""Jira's REST API: one comment on an issue, once, and a transition.

Guarantees: a comment for one deployment at one status is made once, found again by a property that people do not see
(a comment whose answer was lost too); a transition that the issue has made already is none.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from surefoot.core.errors import Code
from surefoot.integrations import http
from surefoot.integrations.delivery import NotDelivered

#: The comment's property that holds the marker.
PROPERTY = "surefoot"
PAGE = 100
PAGES = 20


@dataclass(frozen=True, slots=True)
class Jira:
    """A site, and who writes: a user with an API token (Cloud), or a personal access token alone (Data Center)."""

    url: str
    token: str
    user: str = ""

    async def comment(self, issue: str, document: dict[str, Any], marker: str) -> tuple[str, bool]:
        """Comment on an issue; return the comment's address, and whether it is new."""
        path = f"/issue/{quote(issue, safe='')}/comment"
        found = await self._find(path, marker)
        if found is not None:
            return self._address(issue, found), False
        body = {"body": document, "properties": [{"key": PROPERTY, "value": {"marker": marker}}]}
        made = (await self._ask("POST", path, json=body)).json()
        return self._address(issue, made), True

    async def transition(self, issue: str, name: str) -> bool:
        """Move an issue on; False if it is there already."""
        path = f"/issue/{quote(issue, safe='')}"
        known = (await self._ask("GET", f"{path}/transitions")).json()["transitions"]
        wanted = name.casefold()
        for transition in known:
            if wanted in (transition["name"].casefold(), transition["to"]["name"].casefold()):
                await self._ask("POST", f"{path}/transitions", json={"transition": {"id": transition["id"]}})
                return True
        now = (await self._ask("GET", path, query={"fields": "status"})).json()["fields"]["status"]["name"]
        if now.casefold() == wanted:
            return False
        names = ", ".join(transition["name"] for transition in known) or "none"
        raise NotDelivered(
            f"{issue} has no transition {name!r} from its status {now}",
            code=Code.DELIVERY_REFUSED,
            hint=f"there are: {names}",
        )

    async def _find(self, path: str, marker: str) -> dict[str, Any] | None:
        for page in range(PAGES):
            query = {
                "expand": "properties", "orderBy": "-created", "startAt": str(page * PAGE), "maxResults": str(PAGE),
            }  # fmt: skip
            comments: list[dict[str, Any]] = (await self._ask("GET", path, query=query)).json()["comments"]
            for comment in comments:
                held = {item["key"]: item["value"] for item in comment.get("properties", ())}
                if held.get(PROPERTY) == {"marker": marker}:
                    return comment
            if len(comments) < PAGE:
                break
        return None

    def _address(self, issue: str, comment: dict[str, Any]) -> str:
        return f"{self.url.rstrip('/')}/browse/{issue}?focusedCommentId={comment['id']}"

    async def _ask(
        self, method: str, path: str, *, query: dict[str, str] | None = None, json: Any = None
    ) -> http.Answer:
        if self.user:
            given = "Basic " + base64.b64encode(f"{self.user}:{self.token}".encode()).decode()
        else:
            given = f"Bearer {self.token}"
        url = f"{self.url.rstrip('/')}/rest/api/3{path}"
        headers = {"Authorization": given, "Accept": "application/json"}
        return await http.request(method, url, who="Jira", headers=headers, query=query, json=json)
