"""Whether the layers of a model can hold the ranks of an adapter, before anything starts."""

from collections.abc import Mapping

from sweep.adapters.inits.choose import init_of
from sweep.adapters.options import AdapterOptions
from sweep.adapters.rank import rank_of
from sweep.errors import ConfigError


def check_ranks(adapter: AdapterOptions, shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    """Compare the ranks with the (out, in) shapes of the targeted layers.

    Returns:
        Notes for the record: layers whose full rank is below their adapter's, and the initialisation's own notes.

    Raises:
        ConfigError: no layer can hold its rank; some layer has fewer vectors than the initialisation takes; or
            an odd rank where it must be even.

    """
    init = init_of(adapter)
    ranks = {name: rank_of(adapter, name) for name in shapes}
    asked = f"adapter.rank = {adapter.rank}"
    if adapter.rank_pattern:
        asked += f", rank_pattern = {adapter.rank_pattern}"
    small = [name for name, shape in shapes.items() if min(shape) < ranks[name]]
    if len(small) == len(shapes):
        largest = max(min(shape) for shape in shapes.values())
        raise ConfigError([f"{asked}: no targeted layer can hold it; the largest possible rank here is {largest}"])
    if init.vectors is not None:
        vectors = {name: shape[1] if init.vectors == "in" else min(shape) for name, shape in shapes.items()}
        if lacking := [name for name in shapes if vectors[name] < ranks[name]]:
            raise ConfigError(
                [
                    f"{asked}: init {adapter.init} takes {ranks[lacking[0]]} singular vectors, and "
                    f"{', '.join(lacking)} has only {vectors[lacking[0]]}; lower the rank, or leave these layers out "
                    "of adapter.targets"
                ]
            )
    if init.even_rank and any(rank % 2 for rank in ranks.values()):
        raise ConfigError([f"{asked}: init {adapter.init} needs an even rank"])
    notes = [f"rank {ranks[name]} is above the full rank {min(shapes[name])} of {name}" for name in small]
    if init.note is not None:
        said = {name: init.note(*shape, ranks[name]) for name, shape in shapes.items()}
        notes += [f"init {adapter.init}: {name} {note}" for name, note in said.items() if note]
    return notes
