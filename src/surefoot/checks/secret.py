# SPDX-License-Identifier: Apache-2.0
"""`secret`: a secret is there, is what it should be, and does not expire soon.

Guarantees: what is said of a value is its kind, its length or its expiry, never a part of it; a pattern that would
take for ever is given up with the check. It does not guarantee that a service accepts the secret: only the service
knows.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from surefoot.checks.expiry import expires
from surefoot.checks.model import SET_SECRET, CheckFailed, CheckOptions, CheckWarned, Context, Kind, loaded
from surefoot.checks.programs import asked_program
from surefoot.config.fields import Count, Duration, Pause, SecretName, Text, one_of, refuse
from surefoot.core.errors import Code, Failure
from surefoot.core.plan import Check

#: Reads a pattern and a value, and says by its status whether they match. Some patterns take for ever, and hold
#: Python's lock meanwhile: hence a process of its own, which ends by itself should nobody be left to end it.
_MATCHER = """\
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
pattern, value = json.load(sys.stdin)
sys.exit(0 if re.fullmatch(pattern, value, re.DOTALL) else 1)
"""
_NOT_A_KEY = "put the whole file into it, from -----BEGIN to -----END, with its line breaks"
_CLOCK = "see that the agent's clock is right: date -u"


class Format(StrEnum):
    """What a secret may have to be."""

    SSH_PRIVATE_KEY = "ssh-private-key"
    JWT = "jwt"
    PEM_CERTIFICATE = "pem-certificate"


#: What reading a format takes.
_NEEDS = {Format.JWT: ("jwt",), Format.PEM_CERTIFICATE: ("cryptography.x509",)}


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise refuse(f"is not a regular expression: {error}", hint="as in ghp_[A-Za-z0-9]{36}") from error
    return value


class SecretOptions(CheckOptions):
    """Options of `secret`."""

    name: SecretName = Field(description="Its name in the agent's environment.")
    format: Annotated[Format, BeforeValidator(one_of(Format))] | None = Field(
        default=None,
        description="What it must be. A key is really read, and must need no passphrase; of a token and of a "
        "certificate the expiry is looked at.",
    )
    pattern: Annotated[Text, AfterValidator(_pattern)] | None = Field(
        default=None, description="A regular expression (Python's) that the whole value must match."
    )
    min_length: Count | None = Field(default=None, description="Characters that it must have at least.")
    warn_before: Pause = Field(default=14 * 86400.0, description="Warns when it expires within this time.")
    timeout: Duration = Field(default=5.0, description="After which a pattern is given up.")


class Secret(Kind):
    """See the module's docstring."""

    name: ClassVar = "secret"
    options: ClassVar = SecretOptions

    def secrets(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the secret that it is about."""
        return (str(options.get("name", "")),)

    async def probe(self, options: SecretOptions, context: Context) -> str:
        """Look at the value."""
        name = options.name
        if options.format in _NEEDS:
            await loaded(*_NEEDS[options.format])
        value = context.value_of(name)
        if not value:
            raise CheckFailed(
                f"{name} is not known to {context.values.get('agent', 'the agent')}",
                SET_SECRET.format(name=name),
            )
        if not value.strip():
            raise CheckFailed(f"{name} holds nothing but white space", f"set {name} anew")
        if options.min_length is not None and len(value) < options.min_length:
            raise CheckFailed(
                f"{name} is {len(value)} characters long, and must be at least {options.min_length}",
                f"see that {name} was stored whole",
            )
        if options.pattern is not None and not await _matches(options.pattern, value):
            raise CheckFailed(f"{name} does not match {options.pattern}", f"see that {name} holds the right secret")
        return await asyncio.to_thread(_judge, options.format, name, value, options.warn_before)


class Expired(CheckFailed):
    """It was good once."""


def _judge(kind: Format | None, name: str, value: str, warn_before: float) -> str:
    """Return what a value is found to be; CheckFailed if it is not what it should be."""
    match kind:
        case Format.SSH_PRIVATE_KEY:
            return f"{name} is {ssh_key(name, value)}"
        case Format.JWT:
            return _judged(name, "token", _token(name, value), warn_before)
        case Format.PEM_CERTIFICATE:
            return _judged(name, "certificate", _certificate(name, value), warn_before)
        case None:
            return _plain(name, value)


def no_longer_good(checks: Sequence[Check], values: Mapping[str, str]) -> Failure | None:
    """Return which of these values is not (or no longer) what its preflight check asks for; of a pattern nothing."""
    for check in checks:
        if check.kind != Secret.name or not (value := values.get(str(check.options.get("name", "")))):
            continue
        options = SecretOptions.model_validate(check.options)
        if options.format is None:
            continue
        try:
            _judge(options.format, options.name, value, 0.0)
        except CheckFailed as problem:
            code = Code.SECRET_EXPIRED if isinstance(problem, Expired) else Code.SECRET_INVALID
            return Failure(code, str(problem), hint=problem.hint)
    return None


def _plain(name: str, value: str) -> str:
    bare = value.strip()
    if bare != value and "\n" not in bare:
        raise CheckWarned(
            f"{name} is set, and begins or ends with white space", f"if that is a slip, store {name} without it"
        )
    return f"{name} is set"


async def _matches(pattern: str, value: str) -> bool:
    """Whether a value matches a pattern as a whole."""
    question = json.dumps([pattern, value]).encode()
    return (await asked_program(sys.executable, "-I", "-S", "-c", _MATCHER, stdin=question)).status == 0


# -- keys ------------------------------------------------------------------------------------------------


def ssh_key(name: str, value: str) -> str:
    """Return what kind of private key it is; CheckFailed if it is none that ssh can use by itself."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    text = value.strip().replace("\r\n", "\n")
    if not text.startswith("-----BEGIN "):
        raise CheckFailed(f"{name} is {_instead_of_a_key(text)}", _NOT_A_KEY)
    read = load_ssh_private_key if text.startswith("-----BEGIN OPENSSH") else load_pem_private_key
    try:
        key = read((text + "\n").encode(), None)
    except TypeError:
        raise _needs_passphrase(name) from None
    except (ValueError, UnsupportedAlgorithm):
        broken = "its line breaks are the two characters \\ and n" if "\\n" in text else "it is damaged or cut off"
        raise CheckFailed(f"{name} begins like a private key, but can't be read: {broken}", _NOT_A_KEY) from None
    kind = type(key).__name__.removesuffix("PrivateKey").lstrip("_").lower()
    bits = f" of {key.key_size} bits" if hasattr(key, "key_size") else ""
    return f"a private key ({kind}{bits})"


def _instead_of_a_key(text: str) -> str:
    if text.startswith(("ssh-", "ecdsa-", "sk-")):
        return "a public key, not the private one"
    if text.startswith(("PuTTY-User-Key-File", "---- BEGIN SSH2")):
        return "a key in another program's format, which ssh does not read"
    if re.match(r"[~./][\w./~-]*$", text):
        return "the path of a file, not what the file holds"
    return "no private key"


def _needs_passphrase(name: str) -> CheckFailed:
    return CheckFailed(
        f"{name} is a private key that is locked by a passphrase, which nobody is there to type",
        "take the passphrase off a copy of it: ssh-keygen -p -N '' -f FILE",
    )


# -- what expires ----------------------------------------------------------------------------------------


def expiry(name: str, value: str, format_: Format | None = None) -> float | None:
    """Return when a secret expires; None if it does not, or nobody can tell.

    CheckFailed if it is not what it should be. Without a format it is looked at as what it looks like.
    """
    text = value.strip()
    if format_ is Format.PEM_CERTIFICATE or (format_ is None and text.startswith("-----BEGIN CERTIFICATE")):
        return _certificate(name, value)
    if format_ is Format.JWT or (format_ is None and re.fullmatch(r"eyJ[\w-]+\.[\w-]+\.[\w-]*", text)):
        return _token(name, value)
    return None


def _judged(name: str, what: str, end: float | None, warn_before: float) -> str:
    """Return a sentence on something that ends at `end`; CheckFailed if that is past, CheckWarned if it is near."""
    if end is None:
        return f"{name} is a {what} that does not expire"
    said = f"{name} is a {what} that {expires(end)}"
    left = end - time.time()
    if left <= 0:
        raise Expired(said, f"renew it, and set {name} where the agent is started")
    if left <= warn_before:
        raise CheckWarned(said, f"renew it in time, and set {name} where the agent is started")
    return said


def _token(name: str, value: str) -> float | None:
    """Return when a JSON web token expires; CheckFailed if it is none, or not valid yet."""
    import jwt

    try:
        claims = jwt.decode(value.strip(), options={"verify_signature": False})  # and with it, nothing else
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise CheckFailed(
            f"{name} is no JSON web token that can be read", f"see that {name} was stored whole"
        ) from None
    begin, end = _moment(name, claims, "nbf"), _moment(name, claims, "exp")
    if begin is not None and begin > time.time():
        raise CheckFailed(f"{name} is a token that is not valid yet", _CLOCK)
    return end


def _moment(name: str, claims: Mapping[str, Any], claim: str) -> float | None:
    found = claims.get(claim)
    if found is None or (isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 1e12):
        return found
    raise CheckFailed(f"{name} is a token whose {claim} is no time", f"see who issues {name}")


def _certificate(name: str, value: str) -> float:
    """Return when the first of the certificates expires; CheckFailed if there is none, or one is not valid yet."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates((value.strip() + "\n").encode())
        begin = max(one.not_valid_before_utc.timestamp() for one in found)
        end = min(one.not_valid_after_utc.timestamp() for one in found)
    except ValueError:
        raise CheckFailed(
            f"{name} is no certificate in PEM that can be read",
            "put the whole file into it, from -----BEGIN CERTIFICATE to -----END",
        ) from None
    if begin > time.time():
        raise CheckFailed(
            f"{name} is a certificate that is not valid yet", "see that the agent's clock is right: date -u"
        )
    return end
