"""Models without numbers."""

import torch
from torch import nn

from sweep.models.meta import without_numbers


def test_without_numbers_makes_modules_on_the_meta_device_and_initialises_nothing() -> None:
    given = torch.zeros(3)
    with without_numbers():
        embedding = nn.Embedding(5, 4)
        assert nn.init.normal_(given) is given
    assert embedding.weight.is_meta
    assert embedding.weight.shape == (5, 4)
    assert given.tolist() == [0, 0, 0]
    assert nn.init.normal_(given).count_nonzero() == 3
