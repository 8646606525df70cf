# SPDX-License-Identifier: Apache-2.0
"""Prints one value of a file that ansible-vault has encrypted; a program of its own, so that Ansible's library, which
reads settings and takes hold of the terminal when it is imported, does none of that to an agent.

Told on stdin what to open, as JSON: `file`, `key`, `password`. Says by its status what went wrong, and never a value.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

WRONG_PASSWORD, NO_KEY, UNREADABLE, NOT_ENCRYPTED, NO_ANSIBLE = 3, 4, 5, 6, 7


def main() -> int:
    """Open it."""
    asked = json.load(sys.stdin)
    os.environ.pop("ANSIBLE_CONFIG", None)
    os.chdir("/")  # a project's settings are for its playbooks
    try:
        from ansible.parsing.vault import AnsibleVaultError, VaultLib, VaultSecret, is_encrypted
    except ImportError:
        return NO_ANSIBLE
    library = VaultLib([("default", VaultSecret(asked["password"].encode("utf-8", "surrogateescape")))])
    try:
        with open(asked["file"], "rb") as file:  # noqa: PTH123 - imports as little as it can
            data = file.read()
    except OSError:
        return UNREADABLE
    opened = False

    def decrypted(text: bytes) -> bytes:
        nonlocal opened
        opened = True
        plain: bytes = library.decrypt(text)
        return plain

    try:
        if is_encrypted(data):
            data = decrypted(data)
        value: Any = data
        if asked["key"]:
            found, value = _at(data, asked["key"], decrypted)
            if not found:
                return NO_KEY
    except AnsibleVaultError:
        return WRONG_PASSWORD
    if not opened:
        return NOT_ENCRYPTED
    sys.stdout.buffer.write(value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape"))
    return 0


def _at(data: bytes, key: str, decrypted: Any) -> tuple[bool, Any]:
    """Return whether a document has something at a key, and what; only that is decrypted."""
    import yaml

    class Sealed(str):
        """A value that is still encrypted."""

    class Loader(yaml.SafeLoader):
        """Knows `!vault`."""

    def sealed(loader: Any, node: Any) -> Sealed:
        return Sealed(loader.construct_scalar(node))

    def plain(loader: Any, node: Any) -> Any:
        return loader.construct_scalar(node)

    Loader.add_constructor("!vault", sealed)
    Loader.add_constructor("!vault-encrypted", sealed)
    Loader.add_constructor("!unsafe", plain)
    try:
        found = yaml.load(data, Loader)  # noqa: S506 - a safe one
    except yaml.YAMLError:
        return False, None
    for part in [key] if isinstance(found, dict) and key in found else key.split("."):
        if not isinstance(found, dict) or part not in found:
            return False, None
        found = found[part]
    if isinstance(found, Sealed):
        return True, decrypted(found.encode())
    return found is not None and not isinstance(found, dict | list), found


if __name__ == "__main__":
    sys.exit(main())
