# SPDX-License-Identifier: Apache-2.0
"""The config: `surefoot.yml` found, read, checked, and frozen into plans.

Importing this package costs nothing: `discovery` and `durations` are light, `loading` brings pydantic with it.
"""
