# SPDX-License-Identifier: Apache-2.0
"""Finds out why production is not as it should be: facts are collected side by side, and judged by rules.

`collect` does all input and output and decides nothing; `rules` decide and do none; `where` tells why one deployment
is where it is.
"""
