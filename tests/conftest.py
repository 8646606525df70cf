# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests."""

from __future__ import annotations

import signal

# Under `nohup`, or a runner that does the like, a hangup is ignored by all that the tests start: here it is to count.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
