# SPDX-License-Identifier: Apache-2.0
"""The command line: one file a command group. It talks and formats; what it asks for is in `surefoot.api`."""
