# SPDX-License-Identifier: Apache-2.0
"""Secrets that are there and those that only seem to be: real keys by ssh-keygen, real tokens and certificates."""

from __future__ import annotations

import datetime
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from surefoot.checks.model import CheckResult, CheckStatus
from surefoot.checks.registry import KINDS
from tests.support.looking import context, look

PASS, FAIL, WARN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.WARN
DAY = 86400.0


async def judge(value: str | None, **options: Any) -> CheckResult:
    """Look at a secret, and hold that nothing said quotes it."""
    result = await look("secret", context(secrets={} if value is None else {"KEY": value}), name="KEY", **options)
    for line in (value or "").splitlines():
        if len(line) > 8 and not line.startswith("-----"):
            assert line not in f"{result.message} {result.hint}"
    if result.status is not PASS:
        assert result.hint
    return result


def ssh_key(folder: Path, *options: str, passphrase: str = "") -> str:
    path = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", passphrase, "-f", str(path), *options], check=True)
    return path.read_text()


@pytest.mark.parametrize(
    "options", [("-t", "ed25519"), ("-t", "ecdsa"), ("-t", "rsa", "-b", "2048"), ("-t", "rsa", "-m", "PEM")]
)
async def test_key_that_ssh_keygen_makes_passes(tmp_path: Path, options: tuple[str, ...]) -> None:
    key = ssh_key(tmp_path, *options)
    for value in (key, key.rstrip("\n"), key.replace("\n", "\r\n")):
        result = await judge(value, format="ssh-private-key")
        assert result.status is PASS, result.message
        assert f"({options[1].removesuffix('dsa')}" in result.message


@pytest.mark.parametrize("options", [("-t", "ed25519"), ("-t", "rsa", "-b", "2048", "-m", "PEM")])
async def test_key_behind_a_passphrase_fails(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = await judge(ssh_key(tmp_path, *options, passphrase="correct horse"), format="ssh-private-key")
    assert result.status is FAIL
    assert "passphrase" in result.message
    assert "ssh-keygen -p" in result.hint


@pytest.mark.parametrize("key", ["nonsense", "~/.ssh/id_ed25519", "PuTTY-User-Key-File-3: ssh-ed25519"])
async def test_what_is_no_key_fails(key: str) -> None:
    result = await judge(key, format="ssh-private-key")
    assert result.status is FAIL, result.message


async def test_damaged_key_fails_and_says_how(tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "-t", "ed25519")
    public = (tmp_path / "key.pub").read_text()
    lines = key.splitlines()
    for value, said in [
        (public, "public key"),
        ("\n".join(lines[:2]), "damaged or cut off"),
        ("\n".join([*lines[:1], "AAAA" + lines[1][4:], *lines[2:]]), "damaged or cut off"),
        ("\\n".join(lines), "two characters"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n%%%%\n-----END OPENSSH PRIVATE KEY-----\n", "damaged"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n", "damaged"),
    ]:
        result = await judge(value, format="ssh-private-key")
        assert (result.status, said in result.message) == (FAIL, True), result.message


def token(**claims: Any) -> str:
    return jwt.encode(claims, "a secret that is long enough for the algorithm", algorithm="HS256")


@pytest.mark.parametrize(
    ("claims", "status", "said"),
    [
        ({"exp": 30 * DAY}, PASS, "expires in 29 days"),
        ({"exp": 3 * DAY}, WARN, "expires in 2 days"),
        ({"exp": -3600}, FAIL, "expired 1 hour ago"),
        ({"nbf": 3600}, FAIL, "not valid yet"),
        ({}, PASS, "does not expire"),
    ],
)
async def test_token_is_judged_by_its_times(claims: dict[str, float], status: CheckStatus, said: str) -> None:
    made = token(sub="me", **{name: int(time.time() + left) for name, left in claims.items()})
    result = await judge(made, format="jwt")
    assert result.status is status, result.message
    assert said in result.message


async def test_warn_before_says_how_early_to_warn() -> None:
    made = token(exp=int(time.time() + 3 * DAY))
    assert (await judge(made, format="jwt", warn_before="2d")).status is PASS
    assert (await judge(made, format="jwt", warn_before="0s")).status is PASS
    assert (await judge(made, format="jwt", warn_before="4d")).status is WARN


@pytest.mark.parametrize("garbage", ["nonsense", "a.b.c", "e30.W10.", "eyJhbGciOiJub25lIn0.bnVsbA.", "🐟.🐟.🐟"])
async def test_garbage_is_no_token(garbage: str) -> None:
    result = await judge(garbage, format="jwt")
    assert (result.status, "token" in result.message) == (FAIL, True), result.message


@pytest.mark.parametrize("when", [True, "soon", 1e300, [1]])
async def test_token_whose_expiry_is_no_time_fails(when: Any) -> None:
    made = jwt.api_jws.encode(
        __import__("json").dumps({"exp": when}).encode(), "a secret that is long enough for the algorithm"
    )
    assert (await judge(made, format="jwt")).status is FAIL


def certificate(*, days: float, since: float = -1.0) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + datetime.timedelta(days=min(since, days - 1)))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("pem", "status", "said"),
    [
        (lambda: certificate(days=90), PASS, "expires in 89 days"),
        (lambda: certificate(days=90) + certificate(days=5), WARN, "expires in 4 days"),
        (lambda: certificate(days=-2), FAIL, "expired 2 days ago"),
        (lambda: certificate(days=90, since=2), FAIL, "not valid yet"),
        (lambda: "nonsense", FAIL, "no certificate"),
        (lambda: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", FAIL, "no certificate"),
        (lambda: certificate(days=90)[:200], FAIL, "no certificate"),
    ],
)
async def test_certificate_is_judged_by_its_times(pem: Any, status: CheckStatus, said: str) -> None:
    result = await judge(pem(), format="pem-certificate")
    assert result.status is status, result.message
    assert said in result.message


async def test_secret_that_is_not_set_fails_and_names_the_agent() -> None:
    result = await judge(None)
    assert (result.status, "runner-01" in result.message) == (FAIL, True)
    assert (await judge("")).status is FAIL
    assert (await judge(" \n")).status is FAIL


async def test_white_space_around_a_secret_warns() -> None:
    assert (await judge("ghp_0123456789\n")).status is WARN
    assert (await judge("ghp_0123456789")).status is PASS
    assert (await judge("two lines\nof a file\n")).status is PASS


async def test_pattern_and_length() -> None:
    assert (await judge("ghp_0123456789", pattern="ghp_[0-9]{10}", min_length=14)).status is PASS
    result = await judge("ghp_0123456789x", pattern="ghp_[0-9]{10}")
    assert (result.status, "does not match" in result.message) == (FAIL, True)
    result = await judge("short", min_length=6)
    assert (result.status, "5 characters" in result.message) == (FAIL, True)


async def test_pattern_that_takes_for_ever_fails_by_its_deadline_and_holds_nothing_up() -> None:
    start = time.monotonic()
    result = await judge("a" * 60, pattern="(a+)+b", timeout="300ms")
    assert (result.status, "no result within" in result.message) == (FAIL, True)
    assert time.monotonic() - start < 15
    ours = ["pgrep", "-P", str(os.getpid()), "-f", "json.load.sys.stdin"]
    left = subprocess.run(ours, capture_output=True, text=True).stdout
    assert left == ""


@pytest.mark.parametrize("options", [{}, {"name": "a-b"}, {"name": "A", "pattern": "("}, {"name": "A", "format": "x"}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["secret"].model_validate(options)
