# SPDX-License-Identifier: Apache-2.0
"""Comments for Jira: valid documents by Atlassian's own schema, posted once, whatever Jira does meanwhile."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from jsonschema import Draft4Validator

from surefoot.core import events as ev
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Direction
from surefoot.core.status import Status
from surefoot.integrations.delivery import NotDelivered
from surefoot.integrations.jira import Jira
from surefoot.reports import jira as comment
from surefoot.reports.story import Story
from surefoot.store.memory import MemoryStore
from tests.integrations import telling as t
from tests.store import journal as j
from tests.support.openapi import published


@cache
def documents() -> Draft4Validator:
    schema = json.loads(published("@atlaskit/adf-schema", "dist/json-schema/v1/full.json").read_text())
    return Draft4Validator(schema)


def story(end: Status = Status.ROLLED_BACK) -> Story:
    store = MemoryStore()
    deployment = t.broken(store, end=end)
    return Story(tuple(store.journal(deployment)), 1, ("line one", "line two"), "store-1")


@pytest.mark.parametrize("end", [Status.ROLLED_BACK, Status.STRANDED])
def test_the_document_is_one_that_atlassian_takes(end: Status) -> None:
    assert [error.message for error in documents().iter_errors(comment.document(story(end)))] == []


def test_a_document_that_is_none_is_found() -> None:
    broken = comment.document(story())
    broken["content"][0]["type"] = "paragraf"
    assert list(documents().iter_errors(broken))


def test_document_and_text_hold_result_evidence_commits_and_links() -> None:
    text, document = comment.text(story()), json.dumps(comment.document(story()), ensure_ascii=False)
    for needed in ("rolled_back", "2.0", t.COMMIT, t.ORIGIN.run_url, "Fix |the| <login>", "activate", "passed"):
        assert needed in text and needed in document, needed


def test_odd_texts_make_no_invalid_document() -> None:
    """Text nodes may not be empty, whatever names and reasons are."""
    store = MemoryStore()
    deployment = t.submit(store, version="v")
    grant = j.claim(store, deployment)
    j.append(store, deployment, grant, ev.StepStarted("stage", Direction.FORWARD, 1))
    j.append(store, deployment, grant, ev.StepFailed("stage", Direction.FORWARD, 1, Failure(Code.STEP_FAILED, "")))
    odd = Story(tuple(store.journal(deployment)), 1, ("",), "s")
    assert [error.message for error in documents().iter_errors(comment.document(odd))] == []


class Site:
    """A stand-in for Jira: one issue, its comments, its workflow."""

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = []
        self.status = "In Progress"
        self.wrong: list[str] = []
        self.lose = False
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self._known():
                    return
                path, _, query = self.path.partition("?")
                if path.endswith("/comment"):
                    if "expand=properties" not in query:
                        site.wrong.append("properties are not asked for")
                    self._answer(200, {"comments": site.comments, "total": len(site.comments)})
                elif path.endswith("/transitions"):
                    moves = [] if site.status == "Done" else [{"id": "31", "name": "Finish", "to": {"name": "Done"}}]
                    self._answer(200, {"transitions": moves})
                else:
                    self._answer(200, {"fields": {"status": {"name": site.status}}})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self._known():
                    return
                if self.path.endswith("/transitions"):
                    site.wrong += [] if body == {"transition": {"id": "31"}} else [f"a strange transition: {body}"]
                    site.status = "Done"
                    self.send_response(204)
                    self.end_headers()
                    return
                site.wrong += [error.message for error in documents().iter_errors(body["body"])]
                if set(body) != {"body", "properties"}:
                    site.wrong.append(f"unknown keys: {set(body)}")
                made = {"id": str(10000 + len(site.comments)), **body}
                site.comments.append(made)
                if site.lose:
                    site.lose = False
                    self.connection.close()
                    return
                self._answer(201, made)

            def _known(self) -> bool:
                wanted = base64.b64encode(b"ann@example.invalid:jira-token").decode()
                if not self.path.startswith("/rest/api/3/issue/INFRA-472"):
                    self._answer(404, {"errorMessages": ["Issue does not exist"]})
                    return False
                if self.headers["Authorization"] != f"Basic {wanted}":
                    self._answer(401, {"errorMessages": ["Unauthorized"]})
                    return False
                return True

            def _answer(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site() -> Iterator[Site]:
    documents()  # reading it takes longer than an answer may, on a busy machine
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()
    assert site.wrong == []


async def test_a_comment_is_posted_once_and_the_issue_moved_on(site: Site) -> None:
    jira = Jira(site.url, "jira-token", "ann@example.invalid")
    where, new = await jira.comment("INFRA-472", comment.document(story()), "m")
    assert new and where == f"{site.url}/browse/INFRA-472?focusedCommentId=10000"
    assert await jira.comment("INFRA-472", comment.document(story()), "m") == (where, False)
    assert len(site.comments) == 1
    assert (await jira.comment("INFRA-472", comment.document(story()), "another"))[1]
    assert await jira.transition("INFRA-472", "done")
    assert not await jira.transition("INFRA-472", "Done")
    with pytest.raises(NotDelivered, match="no transition"):
        await jira.transition("INFRA-472", "Nowhere")


async def test_a_comment_whose_answer_was_lost_is_found_again(site: Site) -> None:
    site.lose = True
    jira = Jira(site.url, "jira-token", "ann@example.invalid")
    with pytest.raises(NotDelivered):
        await jira.comment("INFRA-472", comment.document(story()), "m")
    _, new = await jira.comment("INFRA-472", comment.document(story()), "m")
    assert not new and len(site.comments) == 1


async def test_a_wrong_token_and_a_wrong_issue_say_what_to_do(site: Site) -> None:
    with pytest.raises(NotDelivered) as wrong:
        await Jira(site.url, "no", "ann@example.invalid").comment("INFRA-472", comment.document(story()), "m")
    assert "Unauthorized" in wrong.value.message and "renew" in wrong.value.hint
    jira = Jira(site.url, "jira-token", "ann@example.invalid")
    with pytest.raises(NotDelivered, match="does not exist"):
        await jira.comment("INFRA-9", comment.document(story()), "m")
