# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

#: The program that opens ansible-vault's files.
VAULTED = Path(__file__).with_name("vaulted.py")
