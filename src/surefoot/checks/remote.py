# SPDX-License-Identifier: Apache-2.0
"""One request over HTTP that a host makes itself: by a few lines of Python there, whose standard library is enough.

Guarantees: like those of `asking`, the time-out and the longest body too; nothing is left on the host.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from shlex import quote

from surefoot.checks.asking import Unreachable
from surefoot.checks.model import CheckFailed, Context, excerpt

#: Bytes of a body that are read; a host's answer as a whole may not be much longer.
LONGEST_BODY = 128 * 1024
#: Seconds until a host has been reached and its Python has started.
REACHED_WITHIN = 15.0
#: Runs on hosts, with whatever Python 3 Ansible uses there; tells one line of JSON.
_PROGRAM = """\
import base64, json, signal, socket, ssl, sys, time, urllib.error, urllib.request
q = json.loads(base64.b64decode(sys.argv[1]))
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(socket.timeout("timed out")))
signal.setitimer(signal.ITIMER_REAL, q["timeout"])
ends = []
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
tls = ssl.create_default_context()
if not q["verify_tls"]:
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
class Seen(ssl.SSLSocket):
    def do_handshake(self, *a, **k):
        super().do_handshake(*a, **k)
        found = self.getpeercert()
        if found:
            ends.append(ssl.cert_time_to_seconds(found["notAfter"]))
tls.sslsocket_class = Seen
handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls)]
if not q["follow_redirects"]:
    handlers.append(Stay())
ask = urllib.request.Request(q["url"], method=q["method"], headers=q["headers"], data=q["body"].encode() or None)
start = time.monotonic()
try:
    try:
        answer = urllib.request.build_opener(*handlers).open(ask, timeout=q["timeout"])
    except urllib.error.HTTPError as error:
        answer = error
    body = answer.read(q["limit"])
    told = {"status": answer.getcode(), "headers": list(answer.headers.items()),
            "body": base64.b64encode(body).decode(), "seconds": time.monotonic() - start,
            "ends": ends[-1] if ends else None}
except Exception as error:
    why = getattr(error, "reason", error)
    timed_out = isinstance(why, socket.timeout)
    told = {"timed_out": timed_out, "error": str(getattr(why, "strerror", None) or why) or type(why).__name__}
print("surefoot-http:" + json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    certificate_ends: float | None = None


async def fetch(
    context: Context,
    *,
    url: str,
    shown: str,
    method: str,
    headers: Mapping[str, str],
    body: str,
    timeout: float,
    follow_redirects: bool,
    verify_tls: bool,
) -> Reply:
    """Have the host that the check is about ask for a URL."""
    query = {
        "url": url,
        "method": method,
        "headers": dict(headers),
        "body": body,
        "timeout": timeout,
        "follow_redirects": follow_redirects,
        "verify_tls": verify_tls,
        "limit": LONGEST_BODY,
    }
    argument = base64.b64encode(json.dumps(query).encode()).decode()
    result = await context.on_host(f"{python_of(context)} -c {quote(_PROGRAM)} {argument}", timeout + REACHED_WITHIN)
    line = next((line for line in result.output.splitlines() if line.startswith("surefoot-http:")), "")
    if result.status == 255 and not result.output:
        raise CheckFailed(f"{context.place} did not answer within {timeout + REACHED_WITHIN:g} s")
    try:
        told = json.loads(line.partition(":")[2])
    except ValueError:
        raise CheckFailed(
            f"{context.place} can't ask: its Python ended with status {result.status}",
            f"see that {context.place} has Python 3, and ansible_python_interpreter names it",
        ) from None
    if "error" in told:
        what = f" did not answer within {timeout:g} s" if told["timed_out"] else f": {excerpt(told['error'])}"
        raise Unreachable(shown + what)
    from multidict import CIMultiDict

    found = CIMultiDict(told["headers"])
    return Reply(told["status"], found, base64.b64decode(told["body"]), told["seconds"], told["ends"])


def python_of(context: Context) -> str:
    """Return the Python that the inventory has Ansible use on a host, quoted for sh; else the one on its path.

    Of `/usr/bin/env python3` it is the last word.
    """
    named = context.host.variables.get("ansible_python_interpreter", "").split() if context.host else []
    return quote(named[-1]) if named and not named[-1].startswith(("auto", "{{", "}}")) else "python3"
