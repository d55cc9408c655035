"""``python -m sweep sync outputs/NAME``: upload a sweep's W&B runs from disk."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sweep.claim import claimed
from sweep.text import counted, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Upload the runs of a sweep: 0 when all are on the server, 1 when not, 2 when there is no such sweep."""
    parser = argparse.ArgumentParser(
        prog="python -m sweep sync",
        description="Upload to W&B what is not there yet. It may be repeated: nothing is uploaded twice.",
    )
    parser.add_argument("folder", type=Path, help="outputs/NAME")
    parser.add_argument("--entity", help="whose project the runs go to (default: W&B's settings, or the key's owner)")
    parser.add_argument("--project", help="where the runs go (default: W&B's settings, or lora-sweep)")
    options = parser.parse_args(arguments)
    folder = options.folder
    if not (folder / "wandb").is_dir():
        say(f"lora-sweep: {folder} holds no W&B runs", sys.stderr)
        return 2

    from sweep.trackers import upload

    with upload.own_settings():
        return _upload(folder, options.entity, options.project)


def _upload(folder: Path, entity: str | None, project: str | None) -> int:
    from sweep.trackers import upload, wandb

    files = upload.run_files(folder)
    training = claimed(folder, map(upload.trial_of, files))
    wanted = [file for file in files if not upload.marker(file).exists() and upload.trial_of(file) not in training]
    said = ""
    if wanted:
        if obstacle := wandb.obstacle():
            say(f"lora-sweep: {obstacle}; nothing was uploaded, and nothing is lost", sys.stderr)
            return 1
        goal = upload.destination(entity, project)
        say(f"uploading {counted(len(wanted), 'run')} to {goal.entity}/{goal.project} on {wandb.server()}", sys.stderr)
        said = upload.upload(wanted, goal)
    there = sum(upload.marker(file).exists() for file in files)
    say(
        f"{folder}: {there} of {len(files)} W&B runs are on the server"
        + (f"; {len(training)} are still training" if training else "")
    )
    if left := [file for file in wanted if not upload.marker(file).exists()]:
        say(said, sys.stderr)
        say(f"lora-sweep: {counted(len(left), 'run')} not uploaded; the same command tries again", sys.stderr)
    return 0 if there == len(files) else 1
