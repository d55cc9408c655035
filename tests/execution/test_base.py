"""Pre-training of a base."""

from pathlib import Path

import torch
import torch.nn.functional as F

from sweep.execution.base import load_base
from sweep.rng import generator
from sweep.tasks.mnist import mnist
from tests.builders import NOWHERE, digits


def test_a_constant_schedule_is_plain_adam(tmp_path: Path) -> None:
    recipe = {"steps": 20, "batch_size": 10, "lr": 1e-3, "schedule": "constant", "seed": 3}
    config = digits(pretraining=recipe)
    task = mnist(config, NOWHERE)
    base = load_base(config, "digits", task, tmp_path, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = task.new_model()
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
