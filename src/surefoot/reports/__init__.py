# SPDX-License-Identifier: Apache-2.0
"""What journals say, for people: incidents, post-mortems, comments for Jira, service levels. Pure, as the core is."""
