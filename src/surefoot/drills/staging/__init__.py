# SPDX-License-Identifier: Apache-2.0
"""An environment that is there already, with hosts and agents of its own: somebody's staging.

Guarantees: nothing is touched before `drill.yml` and whoever calls have both named it, and it was found idle and in
order; whatever ends a drill but SIGKILL, faults that it made are mended, what it asked for has ended, and the version
that ran before runs again, or it is said aloud what is left and by which commands it is put right. What somebody else
deploys meanwhile is never taken back.

Does not guarantee what only a lab's black boxes could show (see `stage`), nor that a fault's own commands do what they
should.
"""
