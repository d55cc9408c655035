"""What is said of an error that ends a command."""

from types import SimpleNamespace

import pytest
from hydra import compose
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from sweep.cli.messages import readable
from sweep.cli.run import _prefix
from sweep.errors import ConfigError
from tests.support.commands import hydra_loader


def test_readable_finds_the_mistake_among_causes_that_form_a_circle() -> None:
    outer, inner, mistake = RuntimeError("outer"), ValueError("inner"), ConfigError(["seed = -1: must not be negative"])
    outer.__cause__, inner.__context__ = inner, outer
    assert readable(outer) == "outer"
    inner.__context__, mistake.__context__ = mistake, outer
    assert readable(outer) == "seed = -1: must not be negative"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["hydra.job.nothing=1"], "hydra.job.nothing: Hydra has no such setting"),
        (["hydra.launcher.worker=2"], "hydra.launcher.worker: unknown key; did you mean hydra.launcher.workers?"),
        (
            ["hydra.launcher.workers=2"],
            "hydra.launcher.workers: a setting of the packed launcher; add -m, or hydra/launcher=packed",
        ),
        (
            ["hydra/launcher=packed", "hydra.launcher.slurm.partition=short"],
            "hydra.launcher.slurm.partition: not there yet; add it with +hydra.launcher.slurm.partition=…",
        ),
        (
            ["hydra/launcher=packed", "hydra.launcher.slurm={partition: short}"],
            "hydra.launcher.slurm.partition: not there yet; add it with +hydra.launcher.slurm.partition=…",
        ),
    ],
)
def test_readable_says_how_a_key_of_hydra_is_set(overrides: list[str], says: str) -> None:
    with hydra_loader(), pytest.raises(ConfigCompositionException) as caught:
        compose("config", overrides)
    assert readable(caught.value) == says


def test_readable_names_the_variable_that_is_not_set_and_not_the_key_that_refers_to_it() -> None:
    with pytest.raises(InterpolationResolutionError) as caught:
        OmegaConf.to_container(OmegaConf.create({"name": "${oc.env:NOT_SET_ANYWHERE}"}), resolve=True)
    assert readable(caught.value) == "KeyError: \"Environment variable 'NOT_SET_ANYWHERE' not found\""


def test_readable_says_that_something_refers_to_itself_where_the_stack_is_full() -> None:
    assert readable(RecursionError("maximum")) == "a value or a file refers to itself, or is nested too deeply"


def test_prefix_tells_an_error_of_ours_from_one_of_hydra() -> None:
    with pytest.raises(AttributeError) as ours:
        readable(SimpleNamespace(__cause__=None, __context__=3))  # type: ignore[arg-type]
    assert _prefix(ours.value) == "AttributeError (HYDRA_FULL_ERROR=1 shows where): "
    assert _prefix(KeyError("x")) == "the configuration cannot be composed: KeyError: "
    assert _prefix(ConfigError(["seed = -1: must not be negative"])) == ""
