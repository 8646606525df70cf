# SPDX-License-Identifier: Apache-2.0
"""The views of a followed deployment: a sentence for every event, and no text of others that speaks to a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, get_args

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from surefoot.api.follow import Update  # noqa: E402
from surefoot.cli.console import Console  # noqa: E402
from surefoot.cli.settings import Settings  # noqa: E402
from surefoot.cli.views.base import view_for  # noqa: E402
from surefoot.cli.views.github import GitHubView, escaped, escaped_property  # noqa: E402
from surefoot.cli.views.live import LiveView  # noqa: E402
from surefoot.cli.views.plain import PlainView  # noqa: E402
from surefoot.core import events as ev  # noqa: E402
from surefoot.core.deployment import fold  # noqa: E402
from surefoot.core.plan import Direction  # noqa: E402
from surefoot.core.sentences import sentence  # noqa: E402
from surefoot.core.status import Status  # noqa: E402
from surefoot.store.protocol import LogLine  # noqa: E402
from tests.support.events import EVIL, FAILURE, SAMPLES  # noqa: E402

JOURNAL = [
    ev.Entry(1, 1000.0, SAMPLES[ev.Accepted]),
    ev.Entry(2, 1001.0, ev.LeaseGranted("a", 1)),
    ev.Entry(3, 1002.0, ev.StepStarted("go", Direction.FORWARD, 1), "a", 1),
    ev.Entry(4, 1004.0, ev.LeaseGranted("b", 2, taken_from="a", waited_seconds=1.25)),
    ev.Entry(5, 1005.0, ev.StepStarted("go", Direction.FORWARD, 2), "b", 2),
    ev.Entry(6, 1007.0, ev.StepFailed("go", Direction.FORWARD, 2, FAILURE), "b", 2),
]
LINES = (
    LogLine(f"task one {EVIL}", step="go", at=1005.5, id=1),
    LogLine("retrying", stream="agent", agent="b", at=1006.0, id=2),
)


@contextmanager
def stderr(stream: io.StringIO | None = None) -> Iterator[io.StringIO]:
    with redirect_stderr(stream or io.StringIO()) as redirected:
        yield redirected


def update() -> Update:
    return Update(fold(JOURNAL), tuple(JOURNAL), LINES)


@pytest.mark.parametrize("kind", get_args(ev.Event))
def test_every_event_has_a_sentence(kind: type[Any]) -> None:
    entry = ev.Entry(7, 1000.0, SAMPLES[kind], "b", 2)
    assert len(sentence(entry)) > 5


def test_a_takeover_is_told_with_its_latency() -> None:
    assert sentence(JOURNAL[3]) == "b takes over from a after 1.2 s with token 2"


def test_plain_view_has_one_clean_line_for_each_thing_in_order() -> None:
    with stderr() as shown:
        PlainView(Console(Settings())).update(update())
    lines = shown.getvalue().splitlines()
    assert len(lines) == len(JOURNAL) + len(LINES)
    assert all(line[2] == ":" and line[5] == ":" for line in lines), "each line begins with the time"
    assert "\x1b" not in shown.getvalue() and "\x07" not in shown.getvalue()
    assert "task one" in lines[5] and "retrying" in lines[6], "log lines stand between the events around them"


def test_github_view_folds_attempts_and_annotates_failures() -> None:
    with stderr() as shown:
        view = GitHubView(Console(Settings()))
        view.update(update())
        ended = ev.Entry(7, 1008.0, ev.Finished(Status.ROLLED_BACK, FAILURE), "b", 2)
        view.update(Update(fold(JOURNAL), (ended,)))
        view.close()
    commands = [line for line in shown.getvalue().splitlines() if line.startswith("::")]
    kinds = [line.split("::")[1].split(" ")[0] for line in commands]
    assert kinds == ["group", "endgroup", "group", "endgroup", "warning", "error"]
    assert commands[-1].startswith("::error title=SF-STEP-FAILED::it broke")
    assert "100%25" in commands[-1], "percent signs are escaped"


def test_github_view_lets_no_step_speak_to_the_runner() -> None:
    lines = (LogLine("::add-mask::x", at=1.0, id=1), LogLine("\n::error::y", at=1.0, id=2))
    with stderr() as shown:
        view = GitHubView(Console(Settings()))
        view.update(Update(fold(JOURNAL), (), lines))
        view.say("::stop-commands::z")
    assert "stop-commands" in shown.getvalue()
    assert not any(line.lstrip().startswith("::") for line in shown.getvalue().splitlines())


def test_github_escapes_as_the_runner_reads() -> None:
    assert escaped("a%b") == "a%25b"
    assert escaped_property("a:b,c") == "a%3Ab%2Cc"


def test_live_view_shows_steps_hosts_and_takeovers_and_no_markup_of_others() -> None:
    with stderr() as stream:
        view = LiveView(Console(Settings(no_color=True)))
        view.update(Update(fold(JOURNAL[:5]), tuple(JOURNAL[:5]), LINES))
        view.say("careful [red]x[/red]")
        view.close()
    shown = stream.getvalue()
    assert "b takes over from a" in shown
    assert "[bold]x[/bold]" in shown, "markup of others is shown as it is"
    assert "task one" in shown and "1 takeover" in shown and "[red]x[/red]" in shown
    assert "\x07" not in shown


class Gone(io.StringIO):
    """A stream whose reader is gone."""

    error: type[OSError] = BrokenPipeError

    def write(self, _: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


class HungUp(Gone):
    """A terminal that is gone."""

    error = OSError


@pytest.mark.parametrize("stream", [Gone, HungUp])
@pytest.mark.parametrize("view", [PlainView, GitHubView, LiveView])
def test_a_view_outlives_its_reader(view: Any, stream: type[Gone]) -> None:
    with stderr(stream()):
        shown = view(Console(Settings()))
        shown.update(update())
        shown.say("nobody hears this")
        shown.close()


def test_the_view_fits_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with stderr() as stream:
        assert isinstance(view_for(Console(Settings())), PlainView), "a pipe gets plain lines"
        monkeypatch.setattr(stream, "isatty", lambda: True)
        view = view_for(Console(Settings()))
        assert isinstance(view, LiveView)
        view.close()
        assert isinstance(view_for(Console(Settings(output="json"))), PlainView)
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        assert isinstance(view_for(Console(Settings())), GitHubView)
