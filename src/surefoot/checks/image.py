# SPDX-License-Identifier: Apache-2.0
"""`image`: a container image is in its registry, and is pinned to its digest for the rest of the deployment.

Guarantees: steps of the deployment, on whichever agent, get the digest that was found here, so that a tag that is moved
meanwhile changes nothing. It does not guarantee that hosts may pull the image: they log in for themselves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from surefoot.checks.asking import Asking, Unreachable
from surefoot.checks.model import CheckFailed, CheckOptions, Context, Found, Kind
from surefoot.checks.oci import Manifest, Reference, Registry
from surefoot.checks.registry_access import Login, known_to_docker
from surefoot.config.fields import Duration, SecretReference, Text, Truth, filled, refuse

#: What variables that hold pinned images begin with.
PREFIX = "SUREFOOT_IMAGE_"
_DOWN = "see that the registry runs, and can be reached from the agent"


def _platform(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?", value):
        raise refuse("must be OS/ARCHITECTURE", hint="as in linux/amd64")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", value, re.ASCII):
        raise refuse("must be letters, digits and _", hint="as in as: backend")
    return value


Platform = Annotated[Text, AfterValidator(_platform)]


class ImageOptions(CheckOptions):
    """Options of `image`."""

    ref: Text = Field(description="The image, as in `registry.example/app/backend:{version}`.")
    platform: Platform | Annotated[list[Platform], BeforeValidator(filled)] = Field(
        default_factory=list, description="What it must run on, as in `linux/amd64`, or several."
    )
    as_: Annotated[Text, AfterValidator(_variable)] = Field(
        default="",
        alias="as",
        description="Steps find the pinned image in `SUREFOOT_IMAGE_` and this in capitals (playbooks: in lower case). "
        "Default: the last part of its name. No two images may have the same.",
    )
    username: Text = Field(default="", description="A user of the registry. Default: whom Docker's config knows.")
    password: SecretReference = Field(default="", description="The user's password or token.")
    timeout: Duration = Field(default=15.0, description="For all of it.")
    insecure: Truth = Field(
        default=False, description="Whether it is asked without TLS. One on this machine is if it does not speak TLS."
    )
    verify_tls: Truth = Field(default=True, description="Whether its certificate must be trusted.")
    ca: Text = Field(
        default="", description="A PEM file of the authorities to trust, in the project or, from /, on the agent."
    )

    @classmethod
    def pinned(cls, options: Mapping[str, Any]) -> tuple[str, str] | None:
        """The image's variable, unless it depends on what is not known yet."""
        ref, name = str(options.get("ref", "")), str(options.get("as", ""))
        last = name or ref.rpartition("/")[2].partition("@")[0].partition(":")[0]
        return None if not last or "{" in last else (_in_steps(last), ref)

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        if bool(self.username) != bool(self.password):
            raise refuse("needs username and password, or neither", hint='as in password: "${REGISTRY_PASSWORD}"')
        return self


class Image(Kind):
    """See the module's docstring."""

    name: ClassVar = "image"
    options: ClassVar = ImageOptions

    async def probe(self, options: ImageOptions, context: Context) -> Found:
        """Find the manifest, and look what it runs on."""
        image = Reference.read(context.address(options.ref))
        how = Asking(
            image.registry,
            options.timeout,
            verify_tls=options.verify_tls,
            ca=await context.file(options.ca) if options.ca else None,
            outside=True,
        )
        try:
            async with asyncio.timeout(options.timeout):
                if options.username:
                    login = Login(context.fill(options.username), context.secret(options.password))
                else:
                    login = await known_to_docker(image.registry)
                registry = Registry(image, how, login, options.insecure)
                manifest = await _find(registry, options)
                wanted = [options.platform] if isinstance(options.platform, str) else options.platform
                if wanted:
                    _fits(image, wanted, await registry.platforms(manifest))
        except TimeoutError:
            raise CheckFailed(f"{image.registry} did not answer within {options.timeout:g} s", _DOWN) from None
        except Unreachable as error:
            raise CheckFailed(str(error), error.hint or _DOWN) from error
        pinned = image.pinned(manifest.digest)
        variable = _in_steps(options.as_ or image.repository.rpartition("/")[2])
        return Found(f"{image.shown} is {manifest.digest[:19]}…, pinned in {variable}", {variable: pinned})


def _in_steps(name: str) -> str:
    """Return the variable in which steps find a pinned image."""
    return PREFIX + re.sub(r"[^A-Z0-9]", "_", name.upper())


async def _find(registry: Registry, options: ImageOptions) -> Manifest:
    """Find the manifest. As Docker does, a registry on this machine may do without TLS: it is asked first whether it
    does, which tells nobody anything.
    """
    if registry.image.is_local and not (options.insecure or options.ca):
        registry.plain = await registry.speaks_plainly()
    return await registry.find()


def _fits(image: Reference, wanted: list[str], found: list[str]) -> None:
    """CheckFailed if a platform is missing; `linux/arm64` is there where `linux/arm64/v8` is."""
    for platform in wanted:
        if not any(one == platform or one.startswith(f"{platform}/") for one in found):
            there = ", ".join(sorted({one for one in found if not one.startswith("unknown")})) or "none that it tells"
            raise CheckFailed(
                f"{image.shown} does not run on {platform}, only on {there}", f"build it for {platform} too"
            )
