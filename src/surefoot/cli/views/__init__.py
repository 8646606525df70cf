# SPDX-License-Identifier: Apache-2.0
"""How a deployment that is followed looks: on a terminal, as plain lines, in GitHub Actions."""
