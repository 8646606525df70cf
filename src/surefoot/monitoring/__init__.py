# SPDX-License-Identifier: Apache-2.0
"""What Prometheus, Alertmanager and Grafana need: metrics, alert rules, routes, dashboards.

Deployment metrics are a fold of the journal (`ledger`), so that they neither reset nor double when a process that
serves them starts anew, and several processes that serve them agree.
"""
