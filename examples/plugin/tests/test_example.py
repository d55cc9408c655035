"""What the example computes, in numbers that can be checked by hand."""

from math import radians
from pathlib import Path

import pytest
import torch
from lora_sweep_example.init import example_init
from lora_sweep_example.metric import stable_rank
from lora_sweep_example.options import ExampleOptions

from sweep.adapters.inits import BaseWeight
from sweep.adapters.trained import TrainedLayer


def test_example_init_keeps_lengths_and_starts_at_the_base() -> None:
    lora_A, lora_B = example_init.draw(BaseWeight(torch.ones(3, 400)), 400, 1.0, torch.Generator().manual_seed(0))
    x = torch.ones(400)
    assert float((lora_A @ x).norm() / x.norm()) == pytest.approx(1, abs=0.1)  # the standard error is 1/√800
    assert lora_B.shape == (3, 400)
    assert not lora_B.any()


def test_stable_rank_of_singular_values_2_and_1() -> None:
    eye = torch.eye(2)
    layer = TrainedLayer(torch.diag(torch.tensor([2.0, 1.0])), eye, 3.0, eye, eye)
    assert stable_rank.measure({"layer": layer}) == pytest.approx((4 + 1) / 4)


def test_example_task_turns_the_labels_of_the_target_domain() -> None:
    task = ExampleOptions(name="example_task", classes=4, angle=90.0).make(Path())
    for domain, turned in ((task.source, 0.0), (task.target, radians(90))):
        points, labels = domain.train
        angles = (torch.atan2(points[:, 1], points[:, 0]) + turned) % radians(360)
        assert ((angles / radians(90)).floor() % 4 == labels).float().mean() > 0.99  # rounding at the borders aside
