"""Who may import whom, and what the command lines must not import to answer quickly."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SWEEP = [
    {"__main__", "tutorials", "child"},
    {"cli"},
    {"launch"},
    {"engines"},
    {"packs"},
    {"store"},
    {"resolve"},
    {"trial"},
    {"config"},
    {"training"},
    {"tasks"},
    {"params"},
    {"adapters"},
    {"models"},
    {"trackers"},
    {"guard"},
    {"rng", "hardware", "options", "registry"},
    {"state"},
    {"record", "samples", "scores", "wandb_log", "claim", "planned"},
    {"metrics", "files", "text", "errors"},
]
"""The rooms of the harness, top to bottom: a room uses those below it and its own, none above and none beside it."""
ANALYSIS = [
    {"__main__"},
    {"results"},
    {"report"},
    {"figures"},
    {"tables"},
    {"statistics"},
    {"sources"},
    {"columns", "errors"},
]
GROUND = {
    f"sweep.{name}"
    for name in (
        "record",
        "metrics",
        "files",
        "samples",
        "scores",
        "text",
        "errors",
        "wandb_log",
        "state",
        "claim",
        "planned",
    )
}
"""All that ``analysis`` may use of ``sweep``; ``scores`` needs numpy, the others the standard library alone."""
LONGEST_FILE = 400
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
    """``sweep.tasks.mnist.task.digits`` is in ``sweep.tasks``."""
    return ".".join(name.split(".")[:2])


def ours(name: str) -> bool:
    return name.split(".")[0] in ("sweep", "analysis", "hydra_plugins", "tests", "benchmarks")


def test_imports_of_every_kind_are_found() -> None:
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


@pytest.mark.parametrize(("package", "rooms"), [("sweep", SWEEP), ("analysis", ANALYSIS)])
def test_packages_import_only_what_stands_below(package: str, rooms: list[set[str]]) -> None:
    sources = modules(package)
    level = {f"{package}.{name}": number for number, names in enumerate(rooms) for name in names}
    assert {part(name) for name in sources} - {package} <= set(level)
    upwards = {
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in imports(source, module)
        if part(module) != part(name) and part(name) in level and level[part(name)] <= level.get(part(module), -1)
    }
    assert upwards == set()


@pytest.mark.parametrize("package", ["sweep", "analysis"])
def test_imports_form_no_cycles(package: str) -> None:
    sources = modules(package)
    uses = {
        module: {target for name in imports(source, module) if (target := owner(name, sources)) and target != module}
        for module, source in sources.items()
    }
    order: list[str] = []
    while ready := [module for module, targets in uses.items() if targets <= set(order) and module not in order]:
        order += ready
    assert set(uses) - set(order) == set()


def owner(name: str, sources: dict[str, str]) -> str | None:
    """The module that an imported dotted name is, or is in."""
    parts = name.split(".")
    candidates = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return next((module for module in candidates if module in sources), None)


def test_files_are_short_enough_for_one_concept() -> None:
    lengths = {
        name: source.count("\n") for package in ("sweep", "analysis") for name, source in modules(package).items()
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_trackers_import_only_records_and_metrics() -> None:
    sources = modules("sweep")
    seen = {
        part(name)
        for module, source in sources.items()
        if part(module) == "sweep.trackers"
        for name in imports(source, module)
        if ours(name)
    }
    assert seen <= GROUND | {"sweep.trackers", "sweep.options", "sweep.registry"}


def test_training_sees_no_tracker() -> None:
    sources = modules("sweep")
    users = {
        part(module)
        for module, source in sources.items()
        for name in imports(source, module)
        if part(name) == "sweep.trackers"
    }
    assert users <= {"sweep.cli", "sweep.config", "sweep.launch", "sweep.engines", "sweep.packs", "sweep.trackers"}


def test_foundations_need_only_the_standard_library() -> None:
    for module in GROUND & set(modules("sweep")):
        names = list(imports(modules("sweep")[module], module))
        more = {"numpy", "safetensors"} if module == "sweep.scores" else set()
        assert {name.split(".")[0] for name in names if not ours(name)} <= sys.stdlib_module_names | more
        assert {part(name) for name in names if ours(name)} <= GROUND


def test_options_are_free_of_torch() -> None:
    options = [name for name in modules("sweep") if name.split(".")[-1] == "options"]
    assert len(options) > 7
    script = f"import sys, {', '.join(options)}, sweep.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "pydantic" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_analysis_imports_only_the_foundations_of_the_harness() -> None:
    sources = modules("analysis")
    assert len(sources) > 20
    names = {name for module, source in sources.items() for name in imports(source, module)}
    assert {part(name) for name in names if name.split(".")[0] == "sweep"} <= GROUND
    assert not {name for name in names if name.split(".")[0] in ("torch", "hydra", "omegaconf", "tests", "benchmarks")}


def test_analysis_is_asked_by_what_starts_a_sweep_from_python_alone() -> None:
    users = {
        module
        for module, source in modules("sweep").items()
        for name in imports(source, module)
        if name.split(".")[0] == "analysis"
    }
    assert users == {"sweep.child"}


def test_hydra_is_imported_only_by_the_command_line() -> None:
    users = {
        module
        for module, source in modules("sweep").items()
        for name in imports(source, module)
        if name.split(".")[0] in ("hydra", "omegaconf")
    }
    assert {part(module) for module in users} == {"sweep.cli"}


def test_launcher_knows_hydra_and_nothing_of_ours() -> None:
    paths = sorted((ROOT / "sweep/_plugin/hydra_plugins/lora_sweep").glob("*.py"))
    assert len(paths) == 4
    names = {name for path in paths for name in imports(path.read_text(), f"hydra_plugins.lora_sweep.{path.stem}")}
    assert {part(name) for name in names if ours(name)} == {"hydra_plugins.lora_sweep", "sweep.engines"}
    assert {name for name in names if name.startswith("sweep.")} == {"sweep.engines.options.LaunchOptions"}
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert tops == {"hydra", "omegaconf", "yaml", "hydra_plugins", "sweep"}


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
    line = [sys.executable, "-X", "importtime", *how, "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert says in done.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"argparse", "os"} <= imported
    assert imported.isdisjoint(HEAVY)
    assert list(tmp_path.iterdir()) == []
