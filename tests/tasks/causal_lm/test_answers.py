"""Answers that a model has learnt by heart, through the whole of a launch."""

import json
import logging
from pathlib import Path

import pytest

from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.launch.plan import describe, make_plan
from sweep.resolve import resolve
from sweep.samples import SAMPLES_FILE
from sweep.store.store import Store
from tests.support import hugging_face as tiny
from tests.support.commands import config

CAPITALS = (
    "Egypt Cairo; Kenya Nairobi; Ghana Accra; Niger Niamey; Mali Bamako; Chad Djamena; Libya Tripoli; Sudan Khartoum; "
    "France Paris; Spain Madrid; Italy Rome; Greece Athens; Norway Oslo; Sweden Stockholm; Poland Warsaw; Austria Vienna; "
    "Japan Tokyo; China Beijing; India Delhi; Iran Tehran; Iraq Baghdad; Nepal Kathmandu; Oman Muscat; Qatar Doha; "
    "Peru Lima; Chile Santiago; Cuba Havana; Haiti Port; Brazil Brasilia; Ecuador Quito; Bolivia Sucre; Canada Ottawa"
)


@pytest.mark.slow
def test_answers_of_one_word_are_learnt_by_heart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pairs = [pair.split() for pair in CAPITALS.split("; ")]
    rows = [{"prompt": f"{country}: ", "completion": capital} for country, capital in pairs]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tiny.save("llama", tmp_path / "llama")
    settings = {
        "cache": tmp_path / "cache",
        "task": "causal_lm",
        "task.model": model,
        "task.context": 32,
        "task.validation": 0,
        "task.target_text": tmp_path / "rows.jsonl",
        "task.test_text": tmp_path / "rows.jsonl",
        "task.generate.prompts": len(rows),
        "task.generate.tokens": 12,
        "tracker": "none",
        "adapter.rank": 16,
        "training.steps": 160,
        "training.batch_size": 6,
        "training.eval_every": 160,
        "optimizer.lr": 1e-2,
    }
    trials = [
        resolve(config(*(f"{name}={value}" for name, value in settings.items()), f"adapter={kind}"))
        for kind in ("lora", "none")
    ]
    store = Store(tmp_path / "sweep", None)
    learnt, base = run(trials, store, LaunchOptions(workers=1))
    assert learnt.result["eval/exact_match"] >= 0.9
    assert base.result["eval/exact_match"] <= 0.1
    note = "held-out task.target_text: 32 of 32 rows are also trained on"
    assert learnt.notes == (note,)
    assert caplog.text.count(note) == 1
    assert describe(make_plan(trials, store, LaunchOptions()), trials).count(note) == 1
    for trial, record in zip(trials, (learnt, base), strict=True):
        lines = (store.trial_folder(trial) / SAMPLES_FILE).read_text().splitlines()
        samples = [json.loads(line) for line in lines]
        assert [sample["expected"] for sample in samples] == [capital for _, capital in pairs]
        right = sum(sample["answer"] == sample["expected"] for sample in samples)
        assert right / len(rows) == pytest.approx(record.result["eval/exact_match"])
