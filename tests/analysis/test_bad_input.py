"""Whatever stands in a sweep's folder: a table, or one message; never another exception."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulate import grid, write_sweep

import analysis
from analysis.__main__ import main

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just([]) | st.just({})
RECORD_KEYS = [
    "trial_id",
    "name",
    "status",
    "trial",
    "ablation",
    "params",
    "result",
    "perf",
    "environment",
    "notes",
    "error",
    "format",
]
TRIAL_KEYS = ["seed", "task", "adapter", "optimizer", "training"]


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(RECORD_KEYS), LEAVES),
    st.dictionaries(st.sampled_from(TRIAL_KEYS), LEAVES),
    st.binary(),
)
def test_load_names_a_malformed_record_and_reads_its_neighbours(
    record_changes: dict[str, Any], trial_changes: dict[str, Any], history: bytes
):
    with TemporaryDirectory() as place:
        folder = write_sweep(Path(place) / "s", grid([0, 1, 2], rank=[1, 2]), np.random.default_rng(0), points=2)
        path = folder / "trial_00000" / "record.json"
        record = json.loads(path.read_text())
        record["trial"] |= trial_changes
        path.write_text(json.dumps(record | record_changes))
        (folder / "trial_00000" / "history.jsonl").write_bytes(history)
        sweep = analysis.load(folder)
        assert len(sweep.trials) >= 11
        assert len(sweep.trials) == 12 or sweep.problems or sweep.missing
        assert main(["table", str(folder), "--rows", "adapter.rank"]) in (0, 2)
        assert main(["compare", str(folder), "--factor", "adapter.rank", "--baseline", "1"]) in (0, 2)
