# SPDX-License-Identifier: Apache-2.0
"""The commands. Each file is imported when one of its commands is called, and imports only click at its top."""
