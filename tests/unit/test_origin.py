# SPDX-License-Identifier: Apache-2.0
"""Where a deployment was asked for: the run's address, its OIDC claims, and the commits that are new."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from surefoot.agent.origin import origin, run_url

RUN = {"GITHUB_SERVER_URL": "https://github.invalid", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"}


def git(folder: Path, *args: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ["-c", "user.name=Ann Ann", "-c", "user.email=ann@example.invalid", "-C", str(folder)]
    return subprocess.run(["git", *who, *args], check=True, capture_output=True, text=True, env=env).stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(name)
        git(tmp_path, "add", name)
        git(tmp_path, "commit", "-q", "-m", f"Add {name}")
    return tmp_path


def test_the_commits_since_the_last_deployment_are_named_with_their_authors(folder: Path) -> None:
    since = git(folder, "rev-parse", "HEAD~2")
    found = origin(folder, {}, f"{since}-dirty")
    assert found is not None
    assert [(change.subject, change.author) for change in found.changes] == [
        ("Add three", "Ann Ann"),
        ("Add two", "Ann Ann"),
    ]
    assert found.changes[0].commit == git(folder, "rev-parse", "HEAD")
    assert (found.changes[0].at or 0) > 1_600_000_000


@pytest.mark.parametrize("since", [None, "f" * 40, "--output=/tmp/owned", "v1.0"])
def test_what_git_does_not_know_is_left_out(folder: Path, since: str | None) -> None:
    found = origin(folder, RUN, since)
    assert found is not None and found.changes == ()


def test_the_run_is_found_in_every_ci(tmp_path: Path) -> None:
    assert run_url(RUN) == "https://github.invalid/a/b/actions/runs/7"
    assert run_url({**RUN, "GITHUB_RUN_ATTEMPT": "3"}) == "https://github.invalid/a/b/actions/runs/7/attempts/3"
    assert run_url({"CI_JOB_URL": "https://gitlab.invalid/j/1"}) == "https://gitlab.invalid/j/1"
    assert run_url({"BUILD_URL": "https://jenkins.invalid/1"}) == "https://jenkins.invalid/1"
    assert origin(tmp_path, {}, None) is None


@pytest.fixture
def issuer() -> Iterator[tuple[str, list[str]]]:
    """Hands out tokens as GitHub's runner does."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers['Authorization']}")
            claims = {"actor": "ann", "repository": "a/b", "run_id": 7, "sub": "repo:a/b", "jti": "unique"}
            payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
            data = json.dumps({"value": f"head.{payload}.signature"}).encode()
            self.send_response(200 if "Bearer good" in self.headers["Authorization"] else 403)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token?x=1", asked
    server.shutdown()
    server.server_close()


def test_the_claims_of_the_jobs_token_say_who_asked_and_the_token_is_not_kept(
    tmp_path: Path, issuer: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    url, asked = issuer
    environ = {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "good"}
    found = origin(tmp_path, environ, None)
    assert found is not None
    assert found.claims == {"actor": "ann", "repository": "a/b", "run_id": "7"}
    assert asked == ["/token?x=1&audience=surefoot Bearer good"]
    assert "signature" not in repr(found)


@pytest.mark.parametrize("token", ["bad", ""])
def test_no_token_is_no_failure(
    tmp_path: Path, issuer: tuple[str, list[str]], token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    environ = {"ACTIONS_ID_TOKEN_REQUEST_URL": issuer[0], "ACTIONS_ID_TOKEN_REQUEST_TOKEN": token}
    assert origin(tmp_path, environ, None) is None
    assert origin(tmp_path, {**environ, "ACTIONS_ID_TOKEN_REQUEST_URL": "file:///etc/passwd"}, None) is None
