# SPDX-License-Identifier: Apache-2.0
"""What Surefoot promises in numbers, measured: one module a promise, run by `make bench`."""
