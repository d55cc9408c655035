"""Servers that are lost while runs are open: nothing of the runs is lost, and no trial waits for long."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.loopback_wandb import LoopbackWandb
from tests.support.mirror import LOGGED, SUMMARY, clean_environment, start, sync

pytestmark = [pytest.mark.slow, pytest.mark.torture]

LOSES_ITS_SERVER = """
import logging, sys
from pathlib import Path
from sweep.trackers import wandb as module
from tests.support.mirror import CONFIG, METRICS, RECORD, ROWS, settings
logging.basicConfig(format="%(message)s")
module.LEAN.update(finish_timeout=2, init_timeout=3)
folder, fault = sys.argv[1:]
sweep = module.WandbSweep(settings(Path(folder), module.choose_mode("online")))
mirrors = [sweep.open(f"{fault}-{number}", f"n{number}", CONFIG, METRICS) for number in range(4)]
for step, row in enumerate(ROWS):
    if step == 20:
        print("half", flush=True)
        sys.stdin.readline()
    for mirror in mirrors:
        mirror.log(step, row)
module.finish_all((mirror, RECORD) for mirror in mirrors)
for number in range(4):
    late = sweep.open(f"{fault}-late{number}", "late", CONFIG, METRICS)
    late.log(0, ROWS[0])
    late.finish(RECORD)
"""


FAULTS: tuple[Any, ...] = ("die", "hang", 500)


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[Any, str], LoopbackWandb]]:
    """What a process said whose server failed in each way, all at the same time, and a server that then gets their runs."""
    folders = {fault: tmp_path_factory.mktemp("outage") for fault in FAULTS}
    with ExitStack() as stack:
        servers = {fault: stack.enter_context(LoopbackWandb()) for fault in FAULTS}
        processes = {}
        for fault, folder in folders.items():
            environment = clean_environment(folder) | servers[fault].environment()
            processes[fault] = start(LOSES_ITS_SERVER, folder, fault, environment=environment)
        for fault, process in processes.items():
            assert process.stdin
            assert process.stdout
            assert process.stdout.readline() == "half\n"
            if fault == "die":
                servers[fault].die()
            else:
                servers[fault].fault = fault
            process.stdin.write("\n")
            process.stdin.flush()
        said = {fault: process.communicate(timeout=60)[0] for fault, process in processes.items()}
    assert [process.returncode for process in processes.values()] == [0] * len(FAULTS), said
    with LoopbackWandb() as revived:
        left = [run for folder in folders.values() for run in folder.glob("wandb/*run-*")]
        home = clean_environment(tmp_path_factory.mktemp("home"))
        sync("--include-online", *left, environment=home | revived.environment())
        yield said, revived


@pytest.mark.parametrize("fault", FAULTS)
def test_wandb_online_loses_nothing_when_its_server_dies(
    fault: Any, outages: tuple[dict[Any, str], LoopbackWandb]
) -> None:
    said, revived = outages
    warnings = said[fault].splitlines()
    assert len(warnings) == 4
    assert all("could not finish" in line and "python -m sweep sync" in line for line in warnings)
    assert len(revived.runs) == 8 * len(FAULTS)
    for number in range(4):
        assert revived.run_of(f"{fault}-{number}").history == LOGGED
        assert revived.run_of(f"{fault}-{number}").summary == SUMMARY
        assert revived.run_of(f"{fault}-late{number}").history == LOGGED[:1]
