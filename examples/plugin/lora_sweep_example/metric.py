"""The stable rank of what a LoRA has learnt."""

from collections.abc import Mapping

import torch

from sweep.adapters.trained import LayerMetric, TrainedLayer
from sweep.metrics import Metric


def _mean_stable_rank(layers: Mapping[str, TrainedLayer]) -> float:
    """‖s·BA‖²_F / ‖s·BA‖²₂, the mean over the layers: between 1 and the rank (Rudelson and Vershynin 2007)."""
    singular = [torch.linalg.svdvals(layer.delta()) for layer in layers.values()]
    return sum(float(s.square().sum() / s[0].square()) for s in singular) / len(singular)


stable_rank = LayerMetric(Metric("eval/stable_rank", "stable rank of s·BA", kind="end"), _mean_stable_rank)
