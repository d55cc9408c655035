"""Pre-training of a base."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sweep.packs.base import base_file, load_base, pretrained
from sweep.rng import generator
from sweep.tasks.mnist.task import mnist
from tests.support.builders import NOWHERE, bits, digits, equal, text
from tests.support.commands import records, sweep


def test_base_pretraining_at_a_constant_rate_is_plain_adam(tmp_path: Path) -> None:
    recipe = {"steps": 20, "batch_size": 10, "lr": 1e-3, "schedule": "constant", "seed": 3}
    config = digits(pretraining=recipe)
    task = mnist(config, NOWHERE)
    base = load_base(config, "digits", task, tmp_path, torch.device("cpu"))
    model = task.new_model(torch.Generator().manual_seed(3))
    update = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = task.source.batches(generator(3, "data"), 10)
    for _ in range(20):
        batch = next(batches)
        update.zero_grad()
        F.cross_entropy(model(batch.inputs), batch.targets).backward()
        update.step()
    for name, tensor in model.state_dict().items():
        # float32 gradients in another order of summing; Adam divides by their size
        torch.testing.assert_close(base.model.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or os.cpu_count() == 1, reason="one core, or cores that cannot be chosen"
)
@pytest.mark.slow
def test_base_does_not_depend_on_the_number_of_cores(tmp_path: Path) -> None:
    allowed, bases = os.sched_getaffinity(0), set()
    for cores in ({min(allowed)}, allowed):
        folder = tmp_path / str(len(cores))
        os.sched_setaffinity(0, cores)  # which processes that are started now inherit
        try:
            sweep(
                "task=mnist",
                "task.pretraining.steps=6",
                "training.steps=1",
                "tracker=none",
                "name=a",
                cwd=folder,
                fresh=True,
            )
        finally:
            os.sched_setaffinity(0, allowed)
        bases |= {record.environment["base"] for record in records(folder / "outputs" / "a").values()}
    assert len(bases) == 1


def test_pretrained_trains_again_where_the_cached_base_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own.txt").write_text("In the beginning was the word. " * 20)
    options = text(source_text=str(tmp_path / "own.txt"), target_text=str(tmp_path / "own.txt"))
    task = options.build(tmp_path)

    def base() -> dict[str, torch.Tensor]:
        return bits(pretrained(options, "data", task, tmp_path, torch.device("cpu")))

    first = base()
    base_file(options, "data", tmp_path).write_bytes(b"torn")
    assert equal(base(), first)
    assert "cannot be read" in caplog.text
    assert equal(base(), first)
    assert caplog.text.count("cannot be read") == 1
