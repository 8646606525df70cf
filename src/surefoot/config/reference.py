# SPDX-License-Identifier: Apache-2.0
"""The reference page and the JSON Schema of `surefoot.yml`, made from the models, so that they can't say anything else.

The kinds of checks come in as an argument, as everywhere in this package. To write both files:

    python -m surefoot.config.reference --kinds surefoot.checks.registry:KINDS
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from surefoot.config.durations import format_duration
from surefoot.config.expansion import NAME
from surefoot.config.loading import OWN_PREFIX
from surefoot.config.models import Config

Kinds = Mapping[str, type[BaseModel]]
Schema = dict[str, Any]

SCHEMA_FILE = Path(__file__).with_name("surefoot.schema.json")

#: Order and names of the page's sections: the model, its place in the file.
_SECTIONS = {
    "Config": "",
    "Agent": "agents.NAME",
    "RunnerGate": "runner_gate",
    "Lease": "lease",
    "Environment": "environments.NAME",
    "Step": "environments.NAME.steps[]",
    "Undo": "environments.NAME.steps[].undo",
    "StepRetry": "environments.NAME.steps[].retry",
    "Retry": "environments.NAME.retry",
    "HealthPolicy": "environments.NAME.health_policy",
    "Fence": "environments.NAME.fence",
    "Approvals": "environments.NAME.approvals",
    "Window": "environments.NAME.windows[]",
    "PromoteFrom": "environments.NAME.promote_from",
    "Secret": "secrets[]",
    "AnsibleVault": "secrets[].ansible_vault",
    "Ssh": "environments.NAME.ssh",
    "GitHub": "github",
    "GitHubApp": "github.app",
    "Incidents": "incidents",
    "IncidentIssue": "incidents.github",
    "Notify": "notify[]",
}

_INTRODUCTION = """\
<!-- Made from the code by `python -m surefoot.config.reference`; edit src/surefoot/config/models.py instead. -->

# Configuration

One file, `surefoot.yml`, says what is deployed, by whom, in which steps, and what counts as healthy. `surefoot init`
writes one to start from, `surefoot check` says all that is wrong with it at once, with line and key. Editors complete
and check it with the JSON Schema that comes with the package, `surefoot/config/surefoot.schema.json`.

**Where it is.** `--config PATH`, else `$SUREFOOT_CONFIG`, else `surefoot.yml` in this folder or the nearest one
above. Its folder is the project's root: playbooks, inventories and commands are relative to it and must be inside it,
because a deployment runs from a copy of that folder as it was when the deployment was accepted.

**Where deployments are recorded.** `--store URL`, else `$SUREFOOT_STORE`, else `store:` in the file (a relative path
is relative to the file), else `.surefoot/surefoot.db` beside it.

**Durations** are a number and a unit: `500ms`, `5s`, `10m`, `1h`, `1h30m`. A plain number is refused, since it does
not say which unit is meant.

**Variables.** `${NAME}` in a value is replaced from the environment when the file is read; one that is not set is an
error. `$${NAME}` stands for the text `${NAME}`. In `run:`, of steps and of `command` checks, nothing is replaced: `$`
is the shell's there. A name listed under `secrets` is never replaced when the file is read: the agent that runs the
deployment puts its value in where it is used, so it is in no journal. A few texts in braces, such as `{version}` and
`{host}`, are filled in while a deployment runs.

**YAML.** Unknown keys and keys written twice are errors. Keys are read as they are written: an environment may be
called `no` or `1.0`. Anchors, aliases and merge keys work; top-level keys that begin with `x-` are yours, as a place
for anchors. Values that YAML would read as numbers or as `true` must be quoted where text is expected.

**Names** of projects, agents and environments are letters, digits and `.` `_` `-` after a letter or digit.

**Versions** (`surefoot deploy ENV VERSION`) are at most 128 letters, digits and `.` `_` `+` `/` `@` `:` `=` `~` `-`
after a letter or digit, without `..`, `//` or a `/` at the end: container tags and git refs are versions, shell code
is not.
"""

_GATES = """\
How `approvals`, `windows`, `promote_from`, `queue` and `bake` work together, and what they do not prove:
[Gates](gates.md).
"""

_CHECKS = """\
## Checks

Each entry of `preflight` and `health`, and `version_probe`, is one check, `KIND: {options}`. Beside the kind it may
have a `name` to be told by.
"""

_ERRORS = """\
## Errors

| code | meaning |
|---|---|
| `SF-CONFIG-MISSING` | there is no config, or it can't be read |
| `SF-CONFIG-SYNTAX` | it is not YAML, empty, binary, not UTF-8, too large or too deep |
| `SF-CONFIG-KEY` | a key is unknown, missing, or written twice |
| `SF-CONFIG-VALUE` | a value is not what its key takes |
| `SF-CONFIG-VARIABLE` | `${NAME}` is not set, or is no name |
| `SF-CONFIG-FILE` | a playbook or inventory is not there, or outside the project |
| `SF-CONFIG-TIMING` | a time is impossible, or two times contradict each other |
| `SF-NO-HOSTS` | the inventory names no hosts |
| `SF-VERSION-INVALID` | the text given as a version can't be one |

All end with exit code 2, before anything is touched.
"""


def json_schema(kinds: Kinds) -> Schema:
    """Return the JSON Schema for editors; any value may also be a text with a variable in it."""
    schema = _schema(kinds)
    definitions = {name: _with_variables(definition) for name, definition in schema.pop("$defs").items()}
    definitions["PromoteFrom"] = {"anyOf": [{"type": "string"}, definitions["PromoteFrom"]]}  # a name alone will do
    definitions["variable"] = {"type": "string", "pattern": rf"\$\{{{NAME.pattern}\}}"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "surefoot.yml",
        **_with_variables(schema),
        "patternProperties": {f"^{OWN_PREFIX}": True},
        "$defs": definitions,
    }


def reference(kinds: Kinds) -> str:
    """Return the reference page."""
    schema = _schema(kinds)
    definitions = schema.pop("$defs") | {"Config": schema}
    parts = [_INTRODUCTION, "## Keys\n"]
    for name, place in _SECTIONS.items():
        if place:
            parts.append(f"### `{place}`\n")
        parts += [_table(definitions[name], definitions)]
    parts.append(_GATES)
    parts.append(_CHECKS)
    for kind in sorted(kinds):
        parts += [f"### `{kind}`\n", _summary(kinds[kind]), _table(definitions[kind], definitions)]
    parts.append(_ERRORS)
    return "\n".join(part for part in parts if part)


def schema_text(kinds: Kinds) -> str:
    """Return the JSON Schema as it is in the file."""
    return json.dumps(_without_labels(json_schema(kinds)), indent=2) + "\n"


# -- from pydantic's schema to ours ----------------------------------------------------------------------


def _schema(kinds: Kinds) -> Schema:
    """Return the models' schema, with the kinds of checks in it and without what only Python cares about."""
    schema = Config.model_json_schema()
    definitions: Schema = schema["$defs"]
    for name in ("Step", "Undo"):
        definitions[name]["oneOf"] = [{"required": ["run"]}, {"required": ["playbook"]}]
    in_environment = {"type": "string", "pattern": f"^{NAME.pattern}$", "x-label": "name of an environment variable"}
    schema["properties"]["secrets"]["items"] = {"anyOf": [in_environment, {"$ref": "#/$defs/Secret"}]}
    check: Schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    for kind, model in sorted(kinds.items()):
        options = model.model_json_schema()
        definitions |= options.pop("$defs", {})
        definitions[kind] = options
        check["properties"][kind] = {"$ref": f"#/$defs/{kind}"}
    if kinds:
        check |= {"additionalProperties": False, "oneOf": [{"required": [kind]} for kind in sorted(kinds)]}
    definitions["Check"] = check
    return {key: _plain(value) for key, value in schema.items() if key not in ("title", "description")}


def _plain(value: Any) -> Any:
    """Drop generated titles, empty alternatives and defaults of None; write durations as people do."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = dict(value)
    if "anyOf" in value and {"type": "null"} in value["anyOf"]:
        rest = [option for option in value.pop("anyOf") if option != {"type": "null"}]
        value |= rest[0] if len(rest) == 1 else {"anyOf": rest}
    if isinstance(value.get("title"), str):
        del value["title"]
    if "default" in value and value["default"] is None:
        del value["default"]
    if value.get("x-label") == "duration" and isinstance(value.get("default"), float | int):
        value["default"] = format_duration(value["default"])
    if value.get("x-label") == "time of day" and isinstance(value.get("default"), int):
        value["default"] = "{:02d}:{:02d}".format(*divmod(value["default"], 60))
    if value.get("x-label") == "percentage" and isinstance(value.get("default"), float | int):
        value["default"] = f"{value['default']:g}%"
    return {key: _plain(inner) for key, inner in value.items()}


def _with_variables(value: Any) -> Any:
    """Let a variable stand wherever a value that is not any text is expected."""
    if isinstance(value, list):
        return [_with_variables(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: _with_variables(inner) for key, inner in value.items() if key not in ("enum", "default", "examples")}
    result |= {key: value[key] for key in ("enum", "default", "examples") if key in value}
    narrow = result.get("type") in ("integer", "number", "boolean") or "pattern" in result or "enum" in result
    if not narrow or not isinstance(result.get("type"), str):
        return result
    outside = {key: result.pop(key) for key in ("description", "default", "x-label") if key in result}
    return {**outside, "anyOf": [result, {"$ref": "#/$defs/variable"}]}


def _without_labels(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_labels(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_labels(inner) for key, inner in value.items() if key != "x-label"}
    return value


# -- tables ----------------------------------------------------------------------------------------------


def _table(section: Schema, definitions: Schema) -> str:
    """Return a section's keys as a table."""
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    required = section.get("required", ())
    for key, value in section.get("properties", {}).items():
        default = "required" if key in required else _default(value)
        target = definitions.get(str(value.get("$ref", "")).rpartition("/")[2], {})
        meaning = " ".join((value.get("description") or target.get("description", "")).split())
        rows.append("| " + " | ".join(map(_cell, (f"`{key}`", _label(value, definitions), default, meaning))) + " |")
    return "\n".join(rows) + "\n" if len(rows) > 2 else "It has no options.\n"


def _label(value: Schema, definitions: Schema) -> str:
    """Name a type."""
    if "$ref" in value:
        return _label_of_section(value["$ref"].rpartition("/")[2], definitions)
    if label := value.get("x-label"):
        return str(label)
    if "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value["enum"])
    if alternatives := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(dict.fromkeys(_label(option, definitions) for option in alternatives))
    inner: Schema = value.get("items") or next(iter(value.get("patternProperties", {}).values()), {})
    of = f": {_label(inner, definitions)}" if inner else ""
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
    names |= {"array": f"list{of}", "object": f"names{of}" if of else "mapping"}
    return names.get(str(value.get("type")), "any")


def _label_of_section(name: str, definitions: Schema) -> str:
    """Name a type that has a table of its own, with a link to it."""
    if name == "Check":
        return "[check](#checks)"
    if place := _SECTIONS.get(name):
        anchor = "".join(c for c in place.lower() if c.isalnum() or c in "_-")
        return f"[mapping](#{anchor})"
    return _label(definitions.get(name, {}), definitions)


def _default(value: Schema) -> str:
    default = value.get("default", ...)
    if default is ... or default in ("", [], {}):
        return "—"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _summary(kind: type[BaseModel]) -> str:
    """Return the first sentence on a kind, which stands at the head of its module."""
    first = (inspect.getdoc(sys.modules[kind.__module__]) or "").split("\n", maxsplit=1)[0]
    sentence = first.partition("`: ")[2] or first
    return f"{sentence[:1].upper()}{sentence[1:]}\n" if sentence else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _kinds(name: str) -> Kinds:
    """Return the mapping that `module:attribute` names."""
    module, _, attribute = name.partition(":")
    found: Kinds = getattr(importlib.import_module(module), attribute)
    return found


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description="Write docs/configuration.md and the JSON Schema of surefoot.yml.")
    parser.add_argument("--kinds", metavar="MODULE:NAME", help="the mapping of kinds of checks to their options")
    parser.add_argument("--docs", type=Path, default=Path("docs/configuration.md"))
    parser.add_argument("--schema", type=Path, default=SCHEMA_FILE)
    arguments = parser.parse_args()
    found = _kinds(arguments.kinds) if arguments.kinds else {}
    arguments.docs.write_text(reference(found), encoding="utf-8")
    arguments.schema.write_text(schema_text(found), encoding="utf-8")
