# SPDX-License-Identifier: Apache-2.0
"""Holds requests and answers to a published OpenAPI description: what it does not allow is an error.

GitHub's comes from npm (`@octokit/openapi`), which `make cache` puts into the cache folder.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from openapi_schema_validator import OAS30Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

#: Where the Makefile puts what comes from npm.
CACHE = Path(os.environ.get("SUREFOOT_CACHE") or Path.home() / ".cache" / "surefoot")


def published(package: str, file: str) -> Path:
    """A file of an npm package, as `make cache` has put it there."""
    path = CACHE / "npm" / package / file
    if not path.exists():
        raise RuntimeError(f"the tests need {package} from npm: make cache")
    return path


class Description:
    """One service's description."""

    def __init__(self, path: Path) -> None:
        self._document = json.loads(path.read_text(encoding="utf-8"))
        # Definitions are looked up in the document as a whole, without copying it for each request.
        resource: Resource[Any] = Resource.from_contents(self._document, default_specification=DRAFT4)
        self._registry: Registry[Any] = Registry().with_resource("urn:api", resource)
        self._routes = [
            (re.compile("^" + re.sub(r"\\{[^}]+\\}", "([^/]+)", re.escape(route)) + "$"), route)
            for route in self._document["paths"]
        ]

    def route(self, path: str) -> str | None:
        """Return the route that a path belongs to; literal ones come before those with placeholders."""
        found = [route for pattern, route in self._routes if pattern.match(path)]
        return min(found, key=lambda route: route.count("{"), default=None)

    def wrong_request(self, method: str, path: str, query: dict[str, str], body: Any) -> list[str]:
        """Return what the description does not allow in a request."""
        operation = self._operation(method, path)
        if operation is None:
            return [f"there is no {method} {path}"]
        wrong = []
        route = self.route(path)
        assert route is not None
        values = dict(zip(re.findall(r"\{([^}]+)\}", route), self._values(route, path), strict=True))
        known = {}
        for parameter in self._parameters(route, operation):
            known[parameter["name"]] = parameter
            given = values if parameter["in"] == "path" else query
            if parameter["in"] in ("path", "query") and parameter["name"] in given:
                value = _typed(given[parameter["name"]], self._resolved(parameter["schema"]))
                wrong += self._errors(parameter["schema"], value, parameter["name"])
            elif parameter.get("required"):
                wrong.append(f"{parameter['name']} is missing")
        wrong += [f"{name} is no parameter of {method} {route}" for name in query if name not in known]
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            return wrong + ([f"{method} {route} takes no body"] if body is not None else [])
        if body is None:
            required = operation["requestBody"].get("required")
            return [*wrong, f"{method} {route} needs a body"] if required else wrong
        schema = self._resolved(content["schema"])
        if "properties" in schema and not schema.get("additionalProperties"):
            wrong += [f"{key} is no property" for key in body if key not in schema["properties"]]
        return wrong + self._errors(content["schema"], body, "body")

    def wrong_answer(self, method: str, path: str, status: int, body: Any) -> list[str]:
        """Return what the description does not allow in an answer."""
        operation = self._operation(method, path)
        assert operation is not None
        response = operation["responses"].get(str(status))
        if response is None:
            return [] if status >= 400 else [f"{method} {path} never answers {status}"]
        content = self._resolved(response).get("content", {}).get("application/json")
        return [] if content is None else self._errors(content["schema"], body, "answer")

    def answer(self, method: str, path: str, given: dict[str, Any]) -> dict[str, Any]:
        """Return the least that may be answered with status 200, with what is given in it."""
        operation = self._operation(method, path)
        assert operation is not None
        content = self._resolved(operation["responses"]["200"])["content"]["application/json"]
        return {**self._least(content["schema"]), **given}

    def item(self, name: str) -> dict[str, Any]:
        """Return the least that a thing of that name may be."""
        found: dict[str, Any] = self._least({"$ref": f"#/components/schemas/{name}"})
        return found

    def _least(self, schema: dict[str, Any]) -> Any:
        schema = self._resolved(schema)
        for key in ("allOf", "oneOf", "anyOf"):
            if key in schema and "properties" not in schema:
                return self._least(schema[key][0])
        if schema.get("nullable"):
            return None
        if "enum" in schema:
            return schema["enum"][0]
        match schema.get("type"):
            case "string":
                forms = {"uri": "https://example.invalid/", "date-time": "2026-01-01T00:00:00Z"}
                return forms.get(schema.get("format", ""), "x")
            case "integer" | "number":
                return schema.get("minimum", 0)
            case "boolean":
                return False
            case "array":
                return []
            case _:
                properties = schema.get("properties", {})
                return {name: self._least(properties.get(name, {})) for name in schema.get("required", ())}

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        route = self.route(path)
        found: dict[str, Any] | None = None if route is None else self._document["paths"][route].get(method.lower())
        return found

    def _values(self, route: str, path: str) -> list[str]:
        pattern = next(pattern for pattern, name in self._routes if name == route)
        match = pattern.match(path)
        assert match is not None
        return [unquote(value) for value in match.groups()]

    def _parameters(self, route: str, operation: dict[str, Any]) -> list[dict[str, Any]]:
        listed = [*self._document["paths"][route].get("parameters", ()), *operation.get("parameters", ())]
        return [self._resolved(parameter) for parameter in listed]

    def _resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            found: Any = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            node = found
        return node

    def _errors(self, schema: dict[str, Any], value: Any, where: str) -> list[str]:
        absolute = json.loads(json.dumps(schema).replace('"$ref": "#/', '"$ref": "urn:api#/'))
        validator = OAS30Validator(absolute, registry=self._registry)
        return [
            f"{where}{error.json_path.removeprefix('$')}: {error.message}"[:300]
            for error in validator.iter_errors(value)
            # What may be null is, also where its list of values forgets that.
            if not (error.validator == "enum" and error.instance is None and error.schema.get("nullable"))
        ]


def _typed(text: str, schema: dict[str, Any]) -> Any:
    """Read a value of a path or a query as the type that it should have."""
    kinds = {schema.get("type"), *(option.get("type") for option in schema.get("oneOf", ()))}
    if "integer" in kinds and re.fullmatch(r"-?\d+", text):
        return int(text)
    if "boolean" in kinds and text in ("true", "false"):
        return text == "true"
    return text


@cache
def github_description() -> Description:
    """GitHub's own description of its API."""
    return Description(published("@octokit/openapi", "generated/api.github.com.json"))
