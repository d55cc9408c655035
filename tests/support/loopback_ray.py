"""A real Ray cluster on loopback: a head that trains nothing, and worker nodes that can be killed."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
NOTICES_A_DEAD_NODE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_failure_threshold": 5,
}


@contextmanager
def ray_cluster(workers: int, environment: Mapping[str, str]) -> Iterator[Any]:
    """Run a head and ``workers`` nodes of one CPU each, with these variables; yields Ray's own ``Cluster``, which has an ``address``."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ |= ENVIRONMENT | {"RAY_TMPDIR": "/tmp"} | dict(environment)
    try:
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": NOTICES_A_DEAD_NODE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(workers):
            cluster.add_node(num_cpus=1)
    finally:
        os.environ.clear()
        os.environ.update(before)
    try:
        yield cluster
    finally:
        cluster.shutdown()
