"""Whether a trial is equally fast alone by the records of a packed sweep and of one whose trials train one by one.

    python benchmarks/speeds.py            rank 1 and 8 and full fine-tuning of transformer_tiny, five seeds each

The third figure is the step time that the second sweep saw while it trained: its packs are of one trial, one at a time,
so they are alone, too. Let nothing else run beside it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from sweep import record  # noqa: E402

TRIALS = (
    "-m",
    "hydra/launcher=packed",
    "task=transformer_tiny",
    "tracker=none",
    "adapter=lora,full",
    "adapter.rank=1,8",
    "seed=0,1,2,3,4",
    "training.steps=400",
    "training.eval_every=400",
)
SWEEPS = {"packed": (), "lone": ("hydra.launcher.max_pack=1", "hydra.launcher.workers=1")}


def main() -> None:
    """Run both sweeps and print a line for each kind of trial."""
    with tempfile.TemporaryDirectory() as name:
        for sweep, settings in SWEEPS.items():
            _run(Path(name), *TRIALS, *settings, f"name={sweep}")
        packed, lone = (_times(Path(name) / "outputs" / sweep) for sweep in SWEEPS)
    print("kind    alone, by the packed sweep   alone, by the lone sweep   while the lone sweep trained (ms a step)")
    for kind, times in packed.items():
        figures = (times["alone_step_ms"], lone[kind]["alone_step_ms"], lone[kind]["step_ms"])
        print(f"{kind:<8}{'   '.join(map(_text, figures))}")


def _run(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/sweep/_plugin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "sweep", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def _times(sweep: Path) -> dict[str, dict[str, list[float]]]:
    """The step times in ms of each kind of trial, by their names in a record."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for folder in record.trial_folders(sweep):
        one = record.read(folder)
        assert one is not None, folder
        adapter = one.trial["adapter"]
        kind = "full" if adapter["kind"] == "full" else f"rank {adapter['rank']}"
        for name in ("alone_step_ms", "step_ms"):
            if name in one.perf:
                found[kind][name].append(one.perf[name])
    return found


def _text(times: list[float]) -> str:
    if not times:
        return "not measured"
    return f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}, n={len(times)})"


if __name__ == "__main__":
    main()
