"""The quick way to compose a job gives exactly what Hydra's own gives."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.lora_sweep.quick_loader import QuickLoader
from tests.support.commands import hydra_loader

KINDS = {
    "nothing": [],
    "values": ["adapter.rank=2", "seed=3", "optimizer.lr=3e-4", "save_adapter=true", "training.eval_every=null"],
    "a group": ["task=toy_regression"],
    "groups and values": ["adapter=full", "task=transformer_tiny", "optimizer=sgd", "optimizer.lr=0.5", "seed=1"],
    "a value before its group": ["optimizer.lr=0.5", "optimizer=sgd"],
    "the same key twice": ["seed=1", "seed=2"],
    "the same group twice": ["task=mnist", "task=toy_regression"],
    "a new value": ["+adapter.extra=1", "+new=text", "++seed=4", "++task.other={a: 1, b: [2, 3]}"],
    "a new group": ["+ablation=rank"],
    "a new group that sets another": ["+ablation=targets", "seed=2"],
    "a deleted value": ["~optimizer.momentum", "seed=2"],
    "a deleted group": ["~tracker"],
    "another package": ["+optimizer@other=sgd", "seed=2"],
    "a setting of Hydra": ["hydra.job.name=other", "seed=2"],
    "a group of Hydra": ["hydra/launcher=packed"],
    "lists": [
        "task.hidden=[1,2,3]",
        "adapter.targets=[q_proj,v_proj]",
        "adapter.layers=[]",
        "optimizer.betas=[0.5,0.6]",
    ],
    "a mapping": ["+extra={a: {b: 1}}", "task.pretraining={steps: 1, batch_size: 2, lr: 1.0, seed: 3}"],
    "special characters": [
        "adapter.targets='layers[.](0|1)'",
        "name='a,b=c'",
        '+q="it\'s \\"so\\""',
        "+e=''",
        "+p=a/b:c@d%e",
    ],
    "text that looks like something else": [
        "+a='1'",
        "+b='null'",
        "+c='true'",
        "+d=0x10",
        "+e=1e3",
        "+f=on",
        "+g=1:30",
    ],
    "interpolations": [
        "name=${task.name}-${adapter.rank}",
        "seed=${adapter.rank}",
        "optimizer.lr=${oc.env:NOT_SET,0.5}",
    ],
}


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoaderImpl]:
    with hydra_loader() as found:
        yield found


ABLATION = "+ablation=rank"


@pytest.fixture(scope="module", params=["plain", "ablation"])
def master(loader: ConfigLoaderImpl, request: pytest.FixtureRequest) -> DictConfig:
    arguments = {
        "plain": ["hydra/launcher=packed", "task=mnist,toy_regression", "seed=0,1"],
        "ablation": [ABLATION, "hydra.launcher.workers=2", "adapter.rank=1,2"],
    }
    return loader.load_configuration("config", arguments[request.param], RunMode.MULTIRUN)


def job(master: DictConfig, overrides: Sequence[str]) -> list[str]:
    """What Hydra's sweeper passes for one job: the command line's own choices come first."""
    return [*([ABLATION] if "ablation" in master.hydra.runtime.choices else []), *overrides]


def content(config: DictConfig) -> dict[str, Any]:
    """Values and flags of a whole configuration, unresolved."""
    values: Any = OmegaConf.to_container(config, enum_to_str=True)
    flags = {
        key: (OmegaConf.is_readonly(config._get_node(key)), OmegaConf.is_struct(config._get_node(key)))
        for key in config
        if isinstance(config._get_node(key), DictConfig)
    }  # type: ignore[arg-type]
    return {"order": list(config), "values": values, "flags": flags, "struct": OmegaConf.is_struct(config)}


@pytest.mark.parametrize("kind", KINDS)
def test_quick_loader_composes_the_same_configuration(kind: str, loader: ConfigLoaderImpl, master: DictConfig) -> None:
    overrides = job(master, KINDS[kind])
    if sum(override.startswith("+ablation") for override in overrides) > 1:
        pytest.skip("one ablation at a time")
    quick = QuickLoader(loader)
    warm_up = quick.load_sweep_config(master, job(master, ["task=toy_regression", "seed=99", "+warm=up"]))
    assert warm_up.seed == 99
    assert content(quick.load_sweep_config(master, overrides)) == content(
        loader.load_sweep_config(master, list(overrides))
    )


def test_quick_loader_takes_any_mixture_in_any_order(loader: ConfigLoaderImpl, master: DictConfig) -> None:
    quick, rng = QuickLoader(loader), random.Random(0)
    some = ["values", "groups and values", "lists", "special characters", "interpolations", "a group"]
    pool = [override for kind in some for override in KINDS[kind]]
    for _ in range(8):
        overrides = job(master, rng.sample(pool, 5))
        assert content(quick.load_sweep_config(master, overrides)) == content(
            loader.load_sweep_config(master, list(overrides))
        )


@pytest.mark.parametrize(
    "wrong", ["adapter.rnk=1", "task=nothing", "seed", "adapter.rank={", "hydra.nothing=1", "a/b=1"]
)
def test_quick_loader_refuses_the_same(wrong: str, loader: ConfigLoaderImpl, master: DictConfig) -> None:
    with pytest.raises((HydraException, OmegaConfBaseException)) as expected:
        loader.load_sweep_config(master, job(master, [wrong]))
    with pytest.raises(type(expected.value)) as found:
        QuickLoader(loader).load_sweep_config(master, job(master, [wrong]))
    assert str(found.value) == str(expected.value)


def test_quick_loader_jobs_do_not_share_what_they_change(loader: ConfigLoaderImpl, master: DictConfig) -> None:
    quick = QuickLoader(loader)
    first, second = (
        quick.load_sweep_config(master, job(master, [f"seed={seed}", "task.hidden=[5]"])) for seed in (1, 2)
    )
    first.task.hidden.append(7)
    first.adapter.rank = 1
    assert (second.seed, second.task.hidden, second.adapter.rank) == (2, [5], 8)
    assert quick.load_sweep_config(master, job(master, ["seed=3"])).adapter.rank == 8


def test_quick_loader_composes_groups_once(
    loader: ConfigLoaderImpl, master: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = []
    own = loader.load_sweep_config

    def counted(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
        composed.append(list(overrides))
        return own(config, list(overrides))

    monkeypatch.setattr(loader, "load_sweep_config", counted)
    quick = QuickLoader(loader)
    for adapter in ("lora", "full"):
        for seed in range(5):
            for _ in range(2):  # the sweeper's check and the launcher's own request
                quick.load_sweep_config(master, job(master, [f"adapter={adapter}", f"seed={seed}"]))
    assert composed == [job(master, ["adapter=lora"]), job(master, ["adapter=full"])]
