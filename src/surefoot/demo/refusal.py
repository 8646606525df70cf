# SPDX-License-Identifier: Apache-2.0
STALE = 97


def try_command(*a):
    raise NotImplementedError
