# SPDX-License-Identifier: Apache-2.0
"""Pushes deployment metrics to a Pushgateway at the end of a deploy, where no exporter is there to be scraped.

Guarantees: what is pushed are all figures of the store, not this deployment's alone, so that counters neither reset nor
double however many processes push one after the other; a gateway that is away changes nothing of a deployment. It reads
all journals each time: where the history is long, run an exporter instead.
"""

from __future__ import annotations

from urllib.error import URLError

from prometheus_client.exposition import push_to_gateway

from surefoot.core.errors import Code, SurefootError
from surefoot.monitoring import families
from surefoot.monitoring.exposition import Collected
from surefoot.monitoring.reader import Reader
from surefoot.store.protocol import Store

#: Seconds that a gateway has to take what is pushed.
TIMEOUT = 10.0
JOB = "surefoot"


def push(gateway: str, store: Store, project: str | None) -> None:
    """Replace what the gateway has of this project. SurefootError if it does not take it."""
    reader = Reader()
    now = reader.refresh(store)
    found = Collected([*families.of_ledger(reader.ledger), *families.of_now(now)])
    group = {"project": project} if project else {}
    try:
        push_to_gateway(gateway, job=JOB, registry=found, grouping_key=group, timeout=TIMEOUT)
    except (URLError, OSError, ValueError) as error:
        raise SurefootError(
            f"the Pushgateway did not take the metrics: {getattr(error, 'reason', None) or error}",
            code=Code.PUSH_FAILED,
            hint="see that $SUREFOOT_PUSHGATEWAY is its address, as in http://pushgateway:9091",
        ) from error
