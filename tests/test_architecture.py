"""Who may import whom, and what the command lines must not import to answer quickly."""

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"sweep.__main__", "sweep.door", "sweep.messages", "sweep.params", "sweep.status", "sweep.sync", "sweep.tutorials"},
    {"sweep.execution"},
    {"sweep.training"},
    {"sweep.tasks"},
    {"sweep.adapters", "sweep.models"},
    {"sweep.trial", "sweep.record", "sweep.schema", "sweep.rng", "sweep.markdown"},
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
HEAVY = {"torch", "wandb", "pandas", "numpy", "scipy", "statsmodels", "matplotlib", "bokeh", "mlxtend", "transformers"}


def imports(source: str, module: str) -> Iterator[str]:
    """Every dotted name that ``source`` imports, wherever it stands, relative ones resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(module.split(".")[: -node.level]) if node.level else ""
            origin = ".".join(part for part in (package, node.module) if part)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def modules(package: str) -> dict[str, str]:
    """The source of every module of a package, by dotted name; the launcher plugin has a package of its own."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "_plugin" not in parts[1:]:
            found[".".join(parts).removesuffix(".__init__")] = path.read_text()
    return found


def part(name: str) -> str:
    """``sweep.tasks.mnist.digits`` is in ``sweep.tasks``."""
    return ".".join(name.split(".")[:2])


def ours(name: str) -> bool:
    return name.split(".")[0] in ("sweep", "analysis", "hydra_plugins", "tests", "benchmarks")


def test_the_finder_sees_every_kind_of_import() -> None:
    source = """
from typing import TYPE_CHECKING
import a.b as c
from . import d
from ..e import f
if TYPE_CHECKING:
    from g import h
def late():
    import i
"""
    assert set(imports(source, "x.y.z")) == {"typing.TYPE_CHECKING", "a.b", "x.y.d", "x.e.f", "g.h", "i"}


def test_no_module_imports_upwards() -> None:
    sources = modules("sweep")
    assert len(sources) > 35
    assert {part(name) for name in sources} == {*LEVEL, "sweep", "sweep.trackers"}
    upwards = [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in imports(source, module)
        if part(module) in LEVEL and part(name) in LEVEL and LEVEL[part(name)] < LEVEL[part(module)]
    ]
    assert upwards == []


def test_trackers_see_records_and_only_execution_and_sync_see_trackers() -> None:
    sources = modules("sweep")
    seen_by_trackers = {
        part(name)
        for module, source in sources.items()
        if part(module) == "sweep.trackers"
        for name in imports(source, module)
        if ours(name)
    }
    assert seen_by_trackers == {"sweep.record", "sweep.trackers"}
    users = {part(module) for module, source in sources.items() for name in imports(source, module) if part(name) == "sweep.trackers"}  # fmt: skip
    assert users == {"sweep.execution", "sweep.sync", "sweep.trackers"}


def test_a_record_needs_the_standard_library_alone() -> None:
    tops = {name.split(".")[0] for name in imports(modules("sweep")["sweep.record"], "sweep.record")}
    assert "json" in tops
    assert tops <= sys.stdlib_module_names


def test_analysis_knows_records_and_nothing_else_of_the_harness() -> None:
    sources = modules("analysis")
    assert len(sources) > 20
    names = {name for module, source in sources.items() for name in imports(source, module)}
    assert {part(name) for name in names if name.split(".")[0] == "sweep"} == {"sweep.record"}
    assert not {name for name in names if name.split(".")[0] in ("torch", "hydra", "omegaconf", "tests", "benchmarks")}


def test_only_the_command_line_sees_hydra() -> None:
    users = {
        module
        for module, source in modules("sweep").items()
        for name in imports(source, module)
        if name.split(".")[0] in ("hydra", "omegaconf")
    }
    assert users == {"sweep.__main__", "sweep.door", "sweep.messages"}


def test_the_launcher_knows_hydra_and_nothing_of_ours() -> None:
    paths = sorted((ROOT / "sweep/_plugin/hydra_plugins/lora_sweep").glob("*.py"))
    assert len(paths) == 4
    names = {name for path in paths for name in imports(path.read_text(), f"hydra_plugins.lora_sweep.{path.stem}")}
    assert {part(name) for name in names if ours(name)} == {"hydra_plugins.lora_sweep"}
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert tops == {"hydra", "omegaconf", "yaml", "hydra_plugins"}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (("-m", "sweep"), "python -m sweep +ablation="),
        (("-m", "sweep", "status"), "outputs/NAME"),
        (("-m", "sweep.params"), "--targets"),
        (("-m", "analysis"), "table"),
        ((str(Path(sys.executable).with_name("lora-sweep")),), "python -m sweep +ablation="),
        ((str(Path(sys.executable).with_name("lora-report")),), "table"),
    ],
    ids=["sweep", "sweep status", "sweep.params", "analysis", "lora-sweep", "lora-report"],
)
def test_help_answers_at_once(how: tuple[str, ...], says: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-X", "importtime", *how, "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert says in done.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"argparse", "os"} <= imported
    assert imported.isdisjoint(HEAVY)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    assert list(tmp_path.iterdir()) == []
