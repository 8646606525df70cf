# SPDX-License-Identifier: Apache-2.0
"""`file`: a file is there, and is the one that it should be; on the agent or on each host.

Guarantees: a checksum is counted from what the file holds where it is, whole; a file system that hangs is given up with
the check.
"""

from __future__ import annotations

from shlex import quote
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from surefoot.checks.model import CheckFailed, CheckOptions, Context, Kind, Where, excerpt
from surefoot.checks.values import Checksum, Size, checksum_in, size
from surefoot.config.fields import Duration, Text, one_of, refuse


class FileOptions(CheckOptions):
    """Options of `file`."""

    path: Text = Field(
        description="The file, as in `dist/app-{version}.tar.gz`: on the agent in the deployment's folder, unless it "
        "begins with /."
    )
    checksum: Checksum = Field(default="", description="`sha256:…`, `sha384:…` or `sha512:…` of what it holds.")
    min_size: Size | None = Field(default=None, description="It must be at least so large.")
    on: Annotated[Where, BeforeValidator(one_of(Where))] = Field(
        default=Where.AGENT, description="Where it is: on the `agent`, or on each of the `hosts`."
    )
    timeout: Duration = Field(default=60.0, description="For reading it.")

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.on is Where.HOSTS and not self.path.startswith(("/", "{", "${")):
            raise refuse("on hosts the path must begin with /", hint="as in /opt/app/app.tar.gz")
        return self


class File(Kind):
    """See the module's docstring."""

    name: ClassVar = "file"
    options: ClassVar = FileOptions

    async def probe(self, options: FileOptions, context: Context) -> str:
        """Ask for its size, and count its checksum if that is wanted."""
        path = context.address(options.path)
        algorithm, wanted = checksum_of(options.checksum, context)
        count = f' && {algorithm}sum < "$f"' if wanted else ""
        script = (
            f'f={quote(path)}; [ -e "$f" ] || {{ echo missing; exit 0; }}; '
            f'[ -f "$f" ] || {{ echo other; exit 0; }}; wc -c < "$f"{count}'
        )
        result = await context.sh(script, options.timeout)
        where = f"{context.place}: {path}"
        match result.output.split():
            case ["missing"]:
                raise CheckFailed(f"{where} is not there", "see that it was built, and that the path is right")
            case ["other"]:
                raise CheckFailed(f"{where} is no file")
            case [length, *rest] if result.status == 0 and length.isdigit() and bool(rest) == bool(wanted):
                found = int(length)
            case _:
                said = f": {excerpt(result.output)}" if result.output.strip() else ""
                raise CheckFailed(f"{where} can't be read{said}", f"see who may read it: ls -l {quote(path)}")
        if wanted and rest[0] != wanted:
            raise CheckFailed(*unlike(where, algorithm, rest[0], wanted))
        if options.min_size is not None and found < options.min_size:
            raise CheckFailed(f"{where} is {size(found)} large, and must be at least {size(options.min_size)}")
        return f"{where} is there, {size(found)}{f', {algorithm} {wanted[:12]}…' if wanted else ''}"


def checksum_of(text: str, context: Context) -> tuple[str, str]:
    """Return algorithm and digits of an option, or nothing where it is not given."""
    if not text:
        return "", ""
    filled = context.fill(text)
    try:
        return checksum_in(filled)
    except ValueError:
        raise CheckFailed(f"{excerpt(filled)} is no checksum", 'as in "sha256:" and 64 hexadecimal digits') from None


def unlike(what: str, algorithm: str, found: str, wanted: str) -> tuple[str, str]:
    """Return the sentence, and what to do, where something is not what its checksum says."""
    return (
        f"{what} has {algorithm} {found[:12]}… instead of {wanted[:12]}…",
        "it is another file, or was damaged on its way: build or fetch it anew, or correct the checksum",
    )
