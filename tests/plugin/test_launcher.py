"""The packed launcher: Hydra's own tests of a launcher, and what it shows an application before the first job."""

import pytest
from hydra import version
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

from hydra_plugins.lora_sweep.packed_launcher import PackedLauncher


def test_launcher_is_discovered_by_hydra() -> None:
    assert "PackedLauncher" in [plugin.__name__ for plugin in Plugins.instance().discover(Launcher)]
    assert issubclass(PackedLauncher, Launcher)


@pytest.fixture(autouse=True)
def hydras_own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's suites expect the defaults of 1.1, and an earlier test of this process may have chosen others."""
    monkeypatch.setattr(version.VersionBase.instance(), "version_base", version.__compat_version__)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("launcher_name", "overrides"), [("packed", [])])
class TestHydrasLauncherSuite(LauncherTestSuite):
    """Hydra's own, which every launcher has to pass."""


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [({}, ["-m", "hydra/launcher=packed", "hydra/hydra_logging=disabled", "hydra/job_logging=disabled"])],
)
class TestHydrasIntegrationSuite(IntegrationTestSuite):
    """Hydra's own, in processes of their own."""
