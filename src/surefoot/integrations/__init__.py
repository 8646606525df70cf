# SPDX-License-Identifier: Apache-2.0
"""What is told to the world outside: GitHub, chat and mail, webhooks, Jira; each behind `delivery.deliver`'s one door.

Nothing here knows the store or decides about a deployment: a story comes in, and what was told where comes out.
"""
