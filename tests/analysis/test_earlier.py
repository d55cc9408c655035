"""The note on cells that were better earlier than at the end."""

import json
from pathlib import Path

import numpy as np
from scored_sweeps import noted, scored, table
from simulate import make_trial

import analysis
from analysis.tables.table import build


def curved(place: Path, rise: float) -> Path:
    """Trials of rank 4 end ``rise`` above their step 150, those of rank 1 fall to the end."""
    folder = scored(place, [make_trial(seed, rank=rank) for seed in range(5) for rank in (1, 4)])
    rng = np.random.default_rng(5)
    for path in folder.glob("*/record.json"):
        record = json.loads(path.read_text())
        up = rise if record["trial"]["adapter"]["rank"] == 4 else -0.1
        losses = np.array([2.0, 1.5, 1.2, 1.0, 1.0 + up]) + rng.normal(0, 0.01, 5)
        rows = [{"step": 50 * i, "eval/loss": loss, "eval/source_loss": 1 + i} for i, loss in enumerate(losses)]
        path.with_name("history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_better_earlier_names_the_cell_its_seeds_and_how_much(tmp_path: Path):
    folder = curved(tmp_path, 0.2)
    note = noted(folder, "WARNING: the end")
    assert note.startswith(
        "WARNING: the end is not the best of the curve: eval/loss was better earlier for 4 in 5 of 5 seeds, by 0."
    )
    assert note.endswith(" at step 150. training.keep=best keeps each trial's best.")
    forgotten = build(analysis.load(folder), "adapter.rank", None, "eval/source_loss")
    assert not [note for note in forgotten.notes if "the end" in note]
    for path in folder.glob("*/record.json"):
        record = json.loads(path.read_text())
        record["trial"]["training"]["keep"] = "best"
        path.write_text(json.dumps(record))
    assert not [note for note in table(folder).notes if "the end" in note]


def test_better_earlier_is_not_said_of_noise(tmp_path: Path):
    assert not [note for note in table(curved(tmp_path, 0.0)).notes if "the end" in note]
