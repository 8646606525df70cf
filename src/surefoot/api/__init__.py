# SPDX-License-Identifier: Apache-2.0
"""What can be asked of Surefoot, whoever asks: the command line and the HTTP server share these verbs.

Each reads the journal, appends a request, and nothing else: agents do the work.
"""
