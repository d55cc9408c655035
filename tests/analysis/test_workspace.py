"""The W&B workspace, serialised offline and saved to a server on 127.0.0.1."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import analysis
from analysis.__main__ import main
from tests.support.loopback_wandb import LoopbackWandb

pytest.importorskip("wandb_workspaces", reason="the optional wandb-workspaces is not installed")
# wandb-workspaces 0.4.13 itself uses deprecated pydantic validators.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class WithViews(LoopbackWandb):
    """The stub server, which also keeps saved views."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[dict[str, Any]] = []

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        query = json.loads(body) if path == "/graphql" else {}
        if re.search(r"mutation\s+\w*upsertview", query.get("query", ""), re.IGNORECASE):
            told = query["variables"]
            self.views.append(told)
            view = {"id": "Vmlldzox", "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
            view |= {key: told.get(key) for key in ("name", "type", "displayName", "description", "spec")}
            view |= {"user": {"id": "1", "username": "local", "photoUrl": None, "admin": False, "name": "local"}}
            view |= {"project": {"id": "1", "name": told.get("projectName"), "entityName": told.get("entityName")}}
            return 200, json.dumps({"data": {"upsertView": {"view": view, "inserted": True}}}).encode()
        return super().answer(method, path, body)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WithViews]:
    for key in [key for key in os.environ if key.startswith(("WANDB_", "NETRC"))]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    with WithViews() as running:
        for key, value in running.environment().items():
            monkeypatch.setenv(key, value)
        yield running


def panels(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The panels of a workspace's spec by their type."""
    found: dict[str, list[dict[str, Any]]] = {}
    for section in spec["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            found.setdefault(panel["viewType"], []).append(panel["config"])
    return found


def check(spec: dict[str, Any]) -> None:
    found = panels(spec)
    assert {
        "Run History Line Plot",
        "Parallel Coordinates Plot",
        "Parameter Importance",
        "Scatter Plot",
        "Run Comparer",
    } <= set(found)
    lines = {metric for panel in found["Run History Line Plot"] for metric in panel["metrics"]}
    assert {"eval/loss", "train/loss"} <= lines
    # wandb-workspaces names rank inside the config's entry "adapter" so; the service cannot be asked here.
    assert {panel["groupBy"] for panel in found["Run History Line Plot"]} == {"adapter.value.rank"}
    assert "params/trainable_ratio" in json.dumps(found["Scatter Plot"])
    assert "result/eval/loss" in json.dumps(found["Parallel Coordinates Plot"])


def test_workspace_serialises_without_a_server(rank_sweep: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["workspace", str(rank_sweep), "--project", "me/lora-sweep"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert view["displayName"] == "ranks ablation"
    check(view["spec"])


def test_workspace_is_saved_to_the_server(rank_sweep: Path, server: WithViews, capsys: pytest.CaptureFixture[str]):
    assert main(["workspace", str(rank_sweep), "--project", "local/lora-sweep", "--save"]) == 0
    [view] = server.views
    assert (view["entityName"], view["projectName"]) == ("local", "lora-sweep")
    check(json.loads(view["spec"]))
    assert "local/lora-sweep" in capsys.readouterr().out


def test_workspace_refuses_a_project_without_entity(rank_sweep: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["workspace", str(rank_sweep), "--project", "lora-sweep"]) == 2
    assert "must be ENTITY/PROJECT" in capsys.readouterr().err
    assert analysis.load(rank_sweep).name == "ranks"
