"""Which trials train together: the plan of a sweep."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

from sweep.adapters.fold import bucket
from sweep.trial import Trial

MAX_PACK = 64

OWN_SETTINGS = {"lr", "weight_decay", "schedule", "warmup_steps", "clip_norm"}


def plan(trials: Sequence[Trial], max_pack: int = MAX_PACK) -> list[list[int]]:
    """Group the trials' positions into packs, keeping their order."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for position, trial in enumerate(trials):
        groups[_key(trial, position)].append(position)
    return [group[i : i + max_pack] for group in groups.values() for i in range(0, len(group), max_pack)]


def _key(trial: Trial, position: int) -> Hashable:
    """What the trials of a pack have in common.

    Rank bucket, bias and dropout decide which arithmetic a layer does; only trials that would do the same
    alone share it, so that packing changes no bit of a result.
    """
    adapter = trial.adapter
    shared = trial.optimizer.model_dump_json(exclude=OWN_SETTINGS)
    common = (trial.task, trial.data, trial.training, shared, adapter.kind)
    match adapter.kind:
        case "lora":
            return (*common, bucket(adapter.rank or 1), adapter.bias, bool(adapter.dropout))
        case "none":
            return common
        case "full":
            return (*common, position)
