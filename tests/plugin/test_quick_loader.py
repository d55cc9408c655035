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


@pytest.fixture(scope="module")
def master(loader: ConfigLoaderImpl) -> DictConfig:
    """What Hydra hands to a launcher."""
    arguments = ["hydra/launcher=packed", "task=mnist,toy_regression", "seed=0,1"]
    return loader.load_configuration("config", arguments, RunMode.MULTIRUN)


ABLATION = "+ablation=rank"


@pytest.fixture(scope="module")
def ablation(loader: ConfigLoaderImpl) -> DictConfig:
    """The same of an ablation, which Hydra's sweeper passes as the first override of each job."""
    arguments = [ABLATION, "hydra.launcher.workers=2", "adapter.rank=1,2"]
    return loader.load_configuration("config", arguments, RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def quick(loader: ConfigLoaderImpl, master: DictConfig) -> QuickLoader:
    """A quick loader for all jobs of ``master``: none sees anything of those before it."""
    warm = QuickLoader(loader)
    assert warm.load_sweep_config(master, ["task=toy_regression", "seed=99", "+warm=up"]).seed == 99
    return warm


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
def test_quick_loader_composes_the_same_configuration(
    kind: str, quick: QuickLoader, loader: ConfigLoaderImpl, master: DictConfig
) -> None:
    expected = loader.load_sweep_config(master, list(KINDS[kind]))
    assert content(quick.load_sweep_config(master, KINDS[kind])) == content(expected)


def test_quick_loader_takes_any_mixture_in_any_order_on_an_ablation(
    loader: ConfigLoaderImpl, ablation: DictConfig
) -> None:
    quick, rng = QuickLoader(loader), random.Random(0)
    some = ["values", "groups and values", "lists", "special characters", "interpolations", "a group"]
    pool = [override for kind in some for override in KINDS[kind]]
    for _ in range(8):
        overrides = [ABLATION, *rng.sample(pool, 5)]
        expected = loader.load_sweep_config(ablation, list(overrides))
        assert content(quick.load_sweep_config(ablation, overrides)) == content(expected)


@pytest.mark.parametrize(
    "wrong", ["adapter.rnk=1", "task=nothing", "seed", "adapter.rank={", "hydra.nothing=1", "a/b=1"]
)
def test_quick_loader_refuses_the_same(
    wrong: str, quick: QuickLoader, loader: ConfigLoaderImpl, master: DictConfig
) -> None:
    with pytest.raises((HydraException, OmegaConfBaseException)) as expected:
        loader.load_sweep_config(master, [wrong])
    with pytest.raises(type(expected.value)) as found:
        quick.load_sweep_config(master, [wrong])
    assert str(found.value) == str(expected.value)


def test_quick_loader_jobs_do_not_share_what_they_change(quick: QuickLoader, master: DictConfig) -> None:
    first, second = (quick.load_sweep_config(master, [f"seed={seed}", "task.hidden=[5]"]) for seed in (1, 2))
    first.task.hidden.append(7)
    first.adapter.rank = 1
    assert (second.seed, second.task.hidden, second.adapter.rank) == (2, [5], 8)
    assert quick.load_sweep_config(master, ["seed=3"]).adapter.rank == 8


def test_quick_loader_composes_groups_once(
    loader: ConfigLoaderImpl, ablation: DictConfig, monkeypatch: pytest.MonkeyPatch
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
                quick.load_sweep_config(ablation, [ABLATION, f"adapter={adapter}", f"seed={seed}"])
    assert composed == [[ABLATION, "adapter=lora"], [ABLATION, "adapter=full"]]
