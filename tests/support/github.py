# SPDX-License-Identifier: Apache-2.0
"""A stand-in for GitHub's REST API: one repository in memory, every request and answer held to GitHub's description.

It keeps what GitHub keeps of issues, comments, deployments and statuses, knows tokens and an App, and fails on demand
as GitHub does: rate limits, secondary limits, 5xx, answers that never come, and answers that are lost after the work
was done. What the description does not allow is kept in `wrong`, which each test must find empty.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import web

from tests.support.openapi import github_description

_ADDRESSES = (
    "url html_url followers_url following_url gists_url starred_url subscriptions_url organizations_url repos_url "
    "events_url received_events_url avatar_url"
)
USER: dict[str, Any] = {
    "login": "surefoot-bot", "id": 1, "node_id": "U1", "gravatar_id": "", "type": "User", "site_admin": False,
    **dict.fromkeys(_ADDRESSES.split(), "https://example.invalid/u"),
}  # fmt: skip
AT = "2026-01-01T00:00:00Z"
Fault = Callable[[web.Request], "web.StreamResponse | None"]


def limited() -> web.Response:
    """The primary rate limit is used up; it comes back in two seconds."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 2)}
    return web.json_response({"message": "API rate limit exceeded for user ID 1."}, status=403, headers=headers)


def secondary() -> web.Response:
    """The secondary limit, which says how long to wait."""
    return web.json_response(
        {"message": "You have exceeded a secondary rate limit."}, status=403, headers={"Retry-After": "1"}
    )


def broken() -> web.Response:
    """The unicorn page."""
    return web.Response(text="<html>Unicorn!</html>", status=502, content_type="text/html")


@dataclass
class GitHubStandIn:
    """See the module's docstring."""

    repository: str = "acme/paws360"
    token: str = "ghp_StandInToken0123456789"
    assignable: tuple[str, ...] = ("oncall-sre",)
    app_id: str = ""
    app_public_key: str = ""
    runners: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    deployments: list[dict[str, Any]] = field(default_factory=list)
    statuses: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    commit_statuses: list[dict[str, Any]] = field(default_factory=list)
    branches: dict[str, list[str]] = field(default_factory=dict)  #: the commits of each, the newest last
    protected: tuple[str, ...] = ()
    check_runs: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    #: For the next requests: (method, end of the path, what happens). `hang` and `lose` are said by name.
    faults: list[tuple[str, str, str | Callable[[], web.Response]]] = field(default_factory=list)
    url: str = ""
    hanging: float = 30.0

    # -- requests ------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        method, path = request.method, request.path
        self.requests.append((method, path))
        self.wrong += github_description().wrong_request(method, path, dict(request.query), body)
        fault = next((f for f in self.faults if f[0] == method and path.endswith(f[1])), None)
        if fault is not None:
            self.faults.remove(fault)
            if callable(fault[2]):
                return fault[2]()
            if fault[2] == "hang":
                await asyncio.sleep(self.hanging)
        if not self._knows(request):
            return web.json_response({"message": "Bad credentials"}, status=401)
        status, answer = self._answer(method, path, dict(request.query), body)
        self.wrong += github_description().wrong_answer(method, path, status, answer)
        if fault is not None and fault[2] == "lose":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(answer, status=status)

    def _knows(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.headers.get("X-GitHub-Api-Version") != "2022-11-28":
            self.wrong.append("no API version was named")
        if request.path.endswith("/installation") or request.path.startswith("/app/"):
            try:
                claims = jwt.decode(given, self.app_public_key, algorithms=["RS256"], options={"verify_iat": False})
            except jwt.PyJWTError as error:
                self.wrong.append(f"the App's token is not valid: {error}")
                return False
            return claims["iss"] == self.app_id and claims["exp"] - claims["iat"] <= 600
        return given == self.token

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        prefix = f"/repos/{self.repository}"
        if path == f"{prefix}/installation":
            return 200, self._installation()
        if method == "POST" and path == "/app/installations/7/access_tokens":
            return 201, {"token": self.token, "expires_at": "2099-01-01T00:00:00Z", "permissions": {"issues": "write"}}
        if not path.startswith(prefix + "/"):
            return 404, {"message": "Not Found"}
        match method, path.removeprefix(prefix + "/").split("/"):
            case "GET", ["actions", "runners"]:
                return 200, {"total_count": len(self.runners), "runners": self.runners}
            case "GET", ["issues"]:
                return 200, self._page(self._issues(query), query)
            case "POST", ["issues"]:
                return self._open(body)
            case "PATCH", ["issues", number]:
                issue = self.issues[int(number) - 1]
                issue |= body
                issue["closed_at"] = AT if issue["state"] == "closed" else None
                return 200, issue
            case "GET", ["issues", number, "comments"]:
                return 200, self._page(self.comments.get(int(number), []), query)
            case "POST", ["issues", number, "comments"]:
                return 201, self._comment(int(number), body["body"])
            case "GET", ["deployments"]:
                found = [d for d in reversed(self.deployments) if d["sha"] == query.get("sha", d["sha"])]
                return 200, self._page([d for d in found if d["environment"] == query["environment"]], query)
            case "POST", ["deployments"]:
                return 201, self._deploy(body)
            case "POST", ["deployments", number, "statuses"]:
                return 201, self._status(int(number), body)
            case "GET", ["branches" | "compare" | "commits", *_] | ["actions", "artifacts"]:
                found = self._look(path.removeprefix(prefix + "/").split("/"), query)
                if found is None:
                    return 404, {"message": "Not Found"}
                return 200, github_description().answer(method, path, found)
            case "POST", ["statuses", sha]:
                self.commit_statuses.append({"sha": sha, **body})
                return 201, self._commit_status(sha, body)
            case _:
                return 404, {"message": "Not Found"}

    def _look(self, path: list[str], query: dict[str, str]) -> dict[str, Any] | None:
        """Return what checks ask for of commits and what was built from them."""
        commits = [sha for listed in self.branches.values() for sha in listed]

        def filled(whose: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{**github_description().item(whose), **item} for item in self._page(items, query)]

        match path:
            case ["branches", name] if name in self.branches:
                return {"name": name, "protected": name in self.protected}
            case ["compare", pair]:
                branch, _, sha = pair.partition("...")
                if branch not in self.branches or sha not in commits:
                    return None
                there = self.branches[branch]
                status = "identical" if there[-1] == sha else "behind" if sha in there else "diverged"
                return {"status": status, "ahead_by": int(sha not in there)}
            case ["commits", sha, "check-runs"] if sha in commits:
                runs = [run for run in self.check_runs if run["head_sha"] == sha]
                return {"total_count": len(runs), "check_runs": filled("check-run", runs)}
            case ["commits", sha, "status"] if sha in commits:
                found = [
                    {k: v for k, v in one.items() if k != "sha"} for one in self.commit_statuses if one["sha"] == sha
                ]
                return {"sha": sha, "statuses": filled("simple-commit-status", found)}
            case ["actions", "artifacts"]:
                wanted = [one for one in self.artifacts if one["name"] == query.get("name", one["name"])]
                return {"total_count": len(wanted), "artifacts": filled("artifact", wanted)}
            case _:
                return None

    @staticmethod
    def _page(items: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
        size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
        return items[(page - 1) * size : page * size]

    # -- what it keeps -------------------------------------------------------------------------------------------

    def _issues(self, query: dict[str, str]) -> list[dict[str, Any]]:
        state = query.get("state", "open")
        return [issue for issue in reversed(self.issues) if state in ("all", issue["state"])]

    def _open(self, body: dict[str, Any]) -> tuple[int, Any]:
        unknown = [name for name in body.get("assignees", ()) if name not in self.assignable]
        if unknown:
            errors = [{"resource": "Issue", "field": "assignees", "code": "invalid", "value": unknown[0]}]
            return 422, {
                "message": "Validation Failed",
                "errors": errors,
                "documentation_url": "https://docs.github.com",
            }
        if len(body["body"]) > 65536:
            return 422, {"message": "Validation Failed", "errors": [{"message": "body is too long"}]}
        number = len(self.issues) + 1
        url = f"{self.url}/repos/{self.repository}/issues/{number}"
        page = f"https://github.invalid/{self.repository}/issues/{number}"
        issue = {
            "id": number, "node_id": f"I{number}", "number": number, "state": "open",
            "title": body["title"], "body": body["body"], "user": USER, "author_association": "MEMBER",
            "labels": [{"id": 1, "node_id": "L", "url": url, "name": name, "color": "ff0000", "default": False,
                        "description": None} for name in body.get("labels", ())],
            "assignee": None, "assignees": [{**USER, "login": name} for name in body.get("assignees", ())],
            "milestone": None, "locked": False, "active_lock_reason": None, "comments": 0,
            "url": url, "repository_url": url, "labels_url": url, "comments_url": url, "events_url": url,
            "html_url": page, "closed_at": None, "created_at": AT, "updated_at": AT, "closed_by": None,
        }  # fmt: skip
        self.issues.append(issue)
        return 201, issue

    def _comment(self, number: int, text: str) -> dict[str, Any]:
        comments = self.comments.setdefault(number, [])
        url = f"{self.url}/repos/{self.repository}/issues/comments/{len(comments) + 1}"
        comment = {
            "id": len(comments) + 1, "node_id": "C", "url": url, "html_url": url, "issue_url": url, "body": text,
            "user": USER, "created_at": AT, "updated_at": AT, "author_association": "MEMBER",
        }  # fmt: skip
        comments.append(comment)
        return comment

    def _installation(self) -> dict[str, Any]:
        url = f"{self.url}/app/installations/7"
        return {
            "id": 7, "account": USER, "access_tokens_url": url, "repositories_url": url, "html_url": url,
            "app_id": 1, "target_id": 1, "target_type": "User", "permissions": {"issues": "write"}, "events": [],
            "created_at": AT, "updated_at": AT, "single_file_name": None, "repository_selection": "selected",
            "app_slug": "surefoot", "suspended_by": None, "suspended_at": None,
        }  # fmt: skip

    def _deploy(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.deployments) + 1
        url = f"{self.url}/repos/{self.repository}/deployments/{number}"
        deployment = {
            "url": url, "id": number, "node_id": f"D{number}", "sha": body["ref"], "ref": body["ref"],
            "task": body["task"], "payload": body["payload"], "environment": body["environment"],
            "description": body["description"], "creator": USER, "created_at": AT, "updated_at": AT,
            "statuses_url": url, "repository_url": url, "original_environment": body["environment"],
            "production_environment": body["production_environment"],
        }  # fmt: skip
        self.deployments.append(deployment)
        return deployment

    def _status(self, number: int, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/repos/{self.repository}/deployments/{number}/statuses/1"
        status = {
            "url": url, "id": 1, "node_id": "S", "state": body["state"], "creator": USER,
            "description": body["description"], "environment": body["environment"], "target_url": "",
            "created_at": AT, "updated_at": AT, "deployment_url": url, "repository_url": url,
            "log_url": body.get("log_url", ""),
        }  # fmt: skip
        self.statuses.setdefault(number, []).append(status)
        return status

    def _commit_status(self, sha: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/repos/{self.repository}/statuses/{sha}"
        return {
            "url": url, "avatar_url": None, "id": 1, "node_id": "S", "state": body["state"], "creator": USER,
            "description": body["description"], "target_url": body.get("target_url"), "context": body["context"],
            "created_at": AT, "updated_at": AT,
        }  # fmt: skip


@contextmanager
def github_stand_in(**given: Any) -> Iterator[GitHubStandIn]:
    """Serve a stand-in on a free port of 127.0.0.1, in a thread."""
    stand_in = GitHubStandIn(**given)
    github_description()  # takes seconds on a busy machine, for which no client waits
    loop = asyncio.new_event_loop()
    up = threading.Event()
    down = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", stand_in.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        stand_in.url = f"http://{host}:{port}"
        up.set()
        await down.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert up.wait(10)
    try:
        yield stand_in
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(10)
        loop.close()
