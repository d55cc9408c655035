"""The names that can be chosen, ours and those of plug-ins: where they come from, and what is refused."""

import sys
from pathlib import Path

import pytest

from sweep.adapters.options import AdapterOptions
from sweep.registry import GROUPS, INITS, TASKS, Plugin, PluginError, installed
from tests.support.builders import lora
from tests.support.plugins import install, install_example, install_init, on_path

GIVES_KAIMING = "@Init\ndef kaiming(base, rank, scaling, rng):\n    raise AssertionError\n"


def refused(init: str) -> str:
    with pytest.raises(ValueError, match="validation error") as caught:
        AdapterOptions.model_validate(lora().model_dump() | {"init": init})
    return str(caught.value)


def test_registry_without_plugins_has_our_names_alone() -> None:
    assert INITS.names == tuple(INITS.places)
    assert INITS.plugin("kaiming") is None
    assert INITS.shown("kaiming") == "kaiming"


def test_registry_names_plugins_without_importing_them(tmp_path: Path) -> None:
    with on_path(install_example(tmp_path)):
        assert INITS.names == (*INITS.places, "example_init")
        assert TASKS.names == (*TASKS.places, "example_task")
        assert [str(plugin) for plugin in installed()] == ["lora-sweep-example 0.1.0"] * 3
        plugin = INITS.plugin("example_init")
        assert plugin is not None
        assert plugin.source == tmp_path / "lora_sweep_example"
        assert plugin.identity.startswith("lora-sweep-example 0.1.0 ")
        assert "lora_sweep_example" not in sys.modules
    assert INITS.names == tuple(INITS.places)


def test_registry_message_lists_every_name_and_where_a_plugins_comes_from(tmp_path: Path) -> None:
    with on_path(install_example(tmp_path)):
        said = refused("exampel_init")
    assert all(repr(name) in said for name in INITS.places)
    assert "'lora_ga' or 'example_init' (of lora-sweep-example 0.1.0)" in said


def test_registry_refuses_a_name_that_a_plugin_and_we_give_and_no_other(tmp_path: Path) -> None:
    with on_path(install_init(tmp_path, GIVES_KAIMING, "kaiming")):
        assert "given by lora-sweep and by hostile 1.0" in refused("kaiming")
        with pytest.raises(PluginError, match=r"init kaiming: given by lora-sweep and by hostile 1\.0"):
            INITS.load("kaiming")
        assert lora(init="pissa").init == "pissa"


def test_registry_refuses_a_name_that_two_plugins_give(tmp_path: Path) -> None:
    first = install_init(tmp_path / "a", GIVES_KAIMING, "mine", "first")
    second = install_init(tmp_path / "b", GIVES_KAIMING, "mine", "second")
    with on_path(first, second):
        assert "given by first 1.0 and by second 1.0" in refused("mine")


def test_registry_counts_a_distribution_that_is_twice_on_the_path_once(tmp_path: Path) -> None:
    copies = [install_init(tmp_path / name, GIVES_KAIMING, "mine") for name in "ab"]
    with on_path(*copies):
        [plugin] = installed()
        assert plugin.source == tmp_path / "a" / "hostile_module.py"


def test_registry_passes_over_metadata_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = install(tmp_path, "broken", {GROUPS["init"]: {"mine": "m:mine"}}, {})
    (folder / "broken-1.0.dist-info" / "entry_points.txt").write_text("[lora_sweep.inits]\nno equals sign\n")
    with on_path(folder):
        assert INITS.names == tuple(INITS.places)
    assert "no equals sign" in caplog.text


@pytest.mark.parametrize("changed", ["version", "code"])
def test_identity_of_a_plugin_changes_with_its_version_and_with_its_code(tmp_path: Path, changed: str) -> None:
    identities = []
    for name in ("a", "b"):
        with on_path(install_init(tmp_path / name, GIVES_KAIMING, "mine")):
            info = tmp_path / name / "hostile-1.0.dist-info" / "METADATA"
            if name == "b" and changed == "version":
                info.write_text(info.read_text().replace("1.0", "1.1"))
            if name == "b" and changed == "code":
                (tmp_path / name / "hostile_module.py").write_text("# another")
            plugin = INITS.plugin("mine")
            assert plugin is not None
            identities.append(plugin.identity)
    first, second = (identity.split(" ") for identity in identities)
    assert [one == other for one, other in zip(first, second, strict=True)] == [
        True,
        changed == "code",
        changed == "version",
    ]


def test_plugin_whose_package_is_gone_has_an_identity_and_no_source() -> None:
    plugin = Plugin("init", "mine", "no_such_package.module:mine", "hostile", "1.0")
    assert plugin.source is None
    assert plugin.identity == "hostile 1.0 e3b0c44298fc1c14"  # of no file
    assert not plugin.raised(ValueError("x"))
