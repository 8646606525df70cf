# SPDX-License-Identifier: Apache-2.0
"""Secrets that a test lets fly, and all the forms in which programs print such things.

Runs in two places: in the test, and as a program in a deployed project, where it knows the values by the environment
alone. Must therefore import nothing but the standard library.
"""

from __future__ import annotations

import base64
import html
import json
import os
import random
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

#: Bytes of a form which, found anywhere, give a canary away, and at how many places apart is looked for them.
WINDOW, STRIDE = 12, 4
#: What the program prints when it has printed all.
DONE = "all canaries are out"


def canaries(key: str) -> dict[str, str]:
    """Return values by name, the same in each run; `key` is a real private key."""
    chance = random.Random(472)

    def letters(count: int) -> str:
        return "".join(chance.choices("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=count))

    account = {"type": "service_account", "private_key": f"{letters(30)}\n{letters(30)}\n", "id": "x"}
    return {
        "CANARY_PLAIN": letters(41),
        "CANARY_SIGNS": f"{letters(9)}<{letters(9)}>&'{letters(9)}\"\\/+={letters(9)} $%~{letters(9)}`;|",
        "CANARY_WORDS": f"{letters(14)}  {letters(14)}\t{letters(14)}",
        "CANARY_KEY": key,
        "CANARY_UMLAUTS": f"{letters(10)}äöü{letters(10)}日本{letters(10)}🦶{letters(10)}",
        "CANARY_URL": f"postgresql://shop:{letters(12)}%2F{letters(12)}@db.invalid/shop",
        "CANARY_JSON": json.dumps(account, indent=2),
    }


def _each(text: str, before: str, form: str, after: str = "") -> str:
    return "".join(f"{before}{format(ord(c), form)}{after}" for c in text)


def _aligned(skip: int, encode: Callable[[bytes], bytes]) -> Callable[[str], bytes]:
    # Each neighbour shares a character with the secret, which no redactor can tell from the neighbour's own.
    return lambda s: encode(b"u" * skip + s.encode() + b"vw")


#: By name: what a program may make of a value.
FORMS: dict[str, Callable[[str], str | bytes]] = {
    "as it is": str,
    "base64": lambda s: base64.b64encode(s.encode()),
    "base64, second place": _aligned(1, base64.b64encode),
    "base64, third place": _aligned(2, base64.b64encode),
    "base64url": lambda s: base64.urlsafe_b64encode(s.encode()).rstrip(b"="),
    "base64url, second place": _aligned(1, base64.urlsafe_b64encode),
    "base64url, third place": _aligned(2, base64.urlsafe_b64encode),
    "base64 in lines": lambda s: base64.encodebytes(s.encode()),
    "base64 twice": lambda s: base64.b64encode(base64.b64encode(s.encode())),
    "base64 of UTF-16, as PowerShell takes it": lambda s: base64.b64encode(s.encode("utf-16-le")),
    "UTF-16": lambda s: s.encode("utf-16-le"),
    "hex": lambda s: s.encode().hex(),
    "HEX": lambda s: s.encode().hex().upper(),
    "hex, byte by byte": lambda s: s.encode().hex(" "),
    "hex, with colons": lambda s: s.encode().hex(":"),
    "hex, with \\x": lambda s: "".join(f"\\x{byte:02x}" for byte in s.encode()),
    "URL-encoded": lambda s: quote(s, safe=""),
    "URL-encoded path": quote,
    "form-encoded": quote_plus,
    "URL-encoded in small letters": lambda s: re.sub("%..", lambda m: m[0].lower(), quote(s, safe="")),
    "URL-encoded throughout": lambda s: "".join(f"%{byte:02X}" for byte in s.encode()),
    "URL-encoded twice": lambda s: quote(quote(s, safe=""), safe=""),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda s: json.dumps(s, ensure_ascii=False),
    "JSON in JSON": lambda s: json.dumps(json.dumps({"key": s})),
    "JSON, with \\u for what HTML minds": lambda s: re.sub(
        "[<>&']", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(s, ensure_ascii=False)
    ),
    "JSON, with \\u throughout": lambda s: "".join(
        f"\\u{int.from_bytes(s.encode('utf-16-be')[i : i + 2], 'big'):04x}"
        for i in range(0, len(s.encode("utf-16-be")), 2)
    ),
    "HTML": html.escape,
    "HTML by Jinja and Go": lambda s: html.escape(s).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    "XML": lambda s: html.escape(s).replace("&#x27;", "&apos;"),
    "HTML, in numbers throughout": lambda s: _each(s, "&#", "d", ";"),
    "quoted for a shell": shlex.quote,
    "in double quotes": lambda s: re.sub(r'(["\\$`])', r"\\\1", s),
    "Python's repr": repr,
    "Python's repr of bytes": lambda s: repr(s.encode()),
    "lines of Windows": lambda s: s.replace("\n", "\r\n"),
    "on one line": lambda s: " ".join(s.split()),
    "line by line, behind a prefix": lambda s: "".join(f"web-1 | {line}\n" for line in s.splitlines()),
    "coloured in the midst": lambda s: f"\x1b[32m{s[:7]}\x1b[1;31m{s[7:-9]}\x1b[0m\x1b[K{s[-9:]}\x1b[0m",
}


def printed(form: str, value: str) -> bytes:
    """Return the bytes of a form."""
    made = FORMS[form](value)
    return made.encode() if isinstance(made, str) else made


def cores(name: str, value: str) -> Iterator[str]:
    """Yield the parts of a value that may be printed alone."""
    yield value
    if name == "CANARY_URL":
        yield value.split(":")[2].partition("@")[0]
    if name == "CANARY_JSON":
        yield json.loads(value)["private_key"]


def feathers(values: dict[str, str]) -> set[bytes]:
    """Return the bytes of which none may be found anywhere."""
    found: set[bytes] = set()
    for name, value in values.items():
        # Of a document, only what is in it; a private key begins and ends as all of its kind do.
        for core in list(cores(name, value))[-1:]:
            text = "".join(core.splitlines(keepends=True)[3:-3]) if name == "CANARY_KEY" else core
            for form in FORMS:
                data = printed(form, text)
                found |= {data[i : i + WINDOW] for i in range(4, len(data) - WINDOW - 6)}
    # Long rows of one sign are nobody's secret.
    return {window for window in found if len(set(window)) > 4}


def found_in(data: bytes, feathers: set[bytes]) -> list[bytes]:
    """Return what was found, with what stands around it."""
    places = [i for i in range(0, len(data) - WINDOW + 1, STRIDE) if data[i : i + WINDOW] in feathers]
    return [data[max(0, i - 60) : i + 40] for i in places[:3]]


def main() -> None:
    """Print all forms of all canaries of the environment, in all ways; with an argument, only as they are."""
    values = {name: value for name, value in sorted(os.environ.items()) if name.startswith("CANARY_")}
    out, err = sys.stdout.fileno(), sys.stderr.fileno()
    if sys.argv[1:]:
        print(*values.values())
        print(DONE, flush=True)
        raise SystemExit(int(sys.argv[1]))
    for name, value in values.items():
        for core in cores(name, value):
            for form in FORMS:
                data = printed(form, core)
                os.write(out, b"plain: " + data + b" :end\n")
                half = len(data) // 2
                for piece in (data[:7], data[7:half], data[half:] + b"\n"):  # the reader gets some of it
                    os.write(out, piece)
                    os.write(err, piece)
                    time.sleep(0.001)
        # Across the border of a chunk, and of the longest line.
        os.write(out, b"x" * (65536 - 20) + value.encode() + b"\n")
        os.write(out, b"y" * (8192 - 10) + value.encode() + b"\n")
    print(DONE, flush=True)


if __name__ == "__main__":
    main()
