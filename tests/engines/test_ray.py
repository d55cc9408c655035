"""A sweep on a real Ray cluster: a node and the driver are killed, and the records are those of this machine."""

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.launch.packing import into_packs
from sweep.store.store import Store
from tests.support.commands import PATH, TOY, command, history, records, resolved, start, sweep, untimed
from tests.support.loopback_ray import ENVIRONMENT, ray_cluster
from tests.support.plugins import install_example
from tests.support.sweeps import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.torture,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install lora-sweep[ray]"
    ),
    pytest.mark.filterwarnings("default"),  # Ray's own
]
SWEEP = (
    "-m",
    "hydra/launcher=packed",
    "task=mnist",
    "task.hidden=[16]",
    "task.pretraining.steps=20",
    "name=s",
    "adapter.rank=2,3,5",
    "seed=0,1",
    "training.steps=1000",
    "training.eval_every=200",
    "save_adapter=true",
)
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the nodes have their temporary files and their cache: not where the driver has its own."""
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="module")
def cluster(nodes: Path) -> Iterator[Any]:
    places = {"XDG_CACHE_HOME": str(nodes / "cache"), "TMPDIR": str(nodes)}
    with ray_cluster(2, places | {"PYTHONPATH": os.pathsep.join((PATH, str(nodes / "site")))}) as running:
        yield running


def begun(nodes: Path) -> set[Path]:
    """The logs of trials that train on the nodes now."""
    return {log for log in nodes.glob("lora-sweep-*/*/trial.log") if "in a pack of" in log.read_text()}


def test_ray_engine_loses_a_node_and_its_driver_without_changing_a_record(
    cluster: Any, nodes: Path, tmp_path: Path
) -> None:
    local = start("sweep", *SWEEP, cwd=tmp_path / "local")
    there = (*SWEEP, "hydra.launcher.engine=ray", f"hydra.launcher.address={cluster.address}")
    folder = tmp_path / "ray" / "outputs" / "s"

    first = start("sweep", *there, cwd=tmp_path / "ray", **ENVIRONMENT)
    wait_for(lambda: begun(nodes) or first.poll() is not None, DEADLINE_S)
    cluster.remove_node(sorted(cluster.worker_nodes, key=id)[0], allow_graceful=False)
    wait_for(lambda: len(records(folder)) >= 2 or first.poll() is not None, DEADLINE_S)
    done = records(folder)
    assert 0 < len(done) < 6, first.communicate()
    first.send_signal(signal.SIGKILL)
    first.communicate()

    again = command("sweep", *there, cwd=tmp_path / "ray", **ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    errors = local.communicate(timeout=DEADLINE_S)[1]
    assert local.returncode == 0, errors
    assert f"{len(done)} already finished, {6 - len(done)} to train" in again.stdout + again.stderr
    found, expected = records(folder), records(tmp_path / "local" / "outputs" / "s")
    assert {name: untimed(one) for name, one in found.items()} == {name: untimed(one) for name, one in expected.items()}
    assert len(found) == 6
    assert {name: found[name] for name in done} == done
    for name in found:
        own, other = folder / name, tmp_path / "local" / "outputs" / "s" / name
        assert history(own) == history(other)
        weights = "adapter/adapter_model.safetensors"
        assert (own / weights).read_bytes() == (other / weights).read_bytes()
    assert len(list(folder.glob("wandb/offline-run-*/*.wandb"))) == 6
    assert len(list(nodes.glob("cache/lora-sweep/*/cache/bases/*.safetensors"))) == 1


def test_ray_engine_names_the_plugin_that_nodes_lack_and_trains_when_they_have_it(
    cluster: Any, nodes: Path, tmp_path: Path
) -> None:
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join((PATH, str(install_example(tmp_path / "site"))))}
    asked = ("-m", "hydra/launcher=packed", *TOY, "name=s", "adapter.init=kaiming,example_init")
    there = (*asked, "hydra.launcher.engine=ray", f"hydra.launcher.address={cluster.address}")
    sweep(*asked, cwd=tmp_path / "local", **environment)

    assert command("sweep", *there, cwd=tmp_path / "ray", **environment).returncode == 1
    folder = tmp_path / "ray" / "outputs" / "s"
    for one in records(folder).values():
        assert one.error is not None
        assert "this node lacks lora-sweep-example" in one.error["message"]
        assert "pip install lora-sweep-example==0.1.0" in one.error["message"]

    install_example(nodes / "site")
    sweep(*there, cwd=tmp_path / "ray", **environment)
    found, expected = records(folder), records(tmp_path / "local" / "outputs" / "s")
    assert [one.trial["adapter"]["init"] for one in found.values()] == ["example_init", "kaiming"]
    assert {name: untimed(one) for name, one in found.items()} == {name: untimed(one) for name, one in expected.items()}
    assert all("eval/stable_rank" in one.result for one in found.values())


def test_ray_engine_passes_over_what_another_launch_has_finished_since_the_plan(tmp_path: Path) -> None:
    from sweep.engines.ray import RayEngine

    wanted, store = resolved("seed=0", "seed=1", cache=tmp_path), Store(tmp_path / "s", None)
    packs = into_packs(wanted, max_pack=1, workers=2)
    run(wanted, store, LaunchOptions(workers=1))
    without_a_cluster = RayEngine.__new__(RayEngine)
    assert list(without_a_cluster.run(packs, store, None, 2, lambda steps: None)) == []


def test_ray_engine_names_an_address_where_nothing_answers(tmp_path: Path) -> None:
    done = command(
        "sweep", *SWEEP, "hydra.launcher.engine=ray", "hydra.launcher.address=127.0.0.1:9", cwd=tmp_path, **ENVIRONMENT
    )
    assert done.returncode == 1
    assert "hydra.launcher.address = '127.0.0.1:9': no Ray cluster" in done.stderr
