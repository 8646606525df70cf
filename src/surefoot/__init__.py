# SPDX-License-Identifier: Apache-2.0
"""Surefoot: deployments that finish or put things back, whatever dies on the way."""

__version__ = "0.1.0"
