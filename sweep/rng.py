"""Random numbers: one generator for each seed, purpose and name, so that no draw depends on its neighbours."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator(seed: int, purpose: str, name: str = "") -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments.

    ``purpose`` says what the numbers are for (``init``, ``data``, ``dropout``), ``name`` for which part (a
    layer, usually): adapting one more layer, or packing one more trial, changes no other numbers.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


@contextmanager
def drawing_from(rng: torch.Generator) -> Iterator[None]:
    """Let what draws from torch's global CPU generator, as its layers do when they are made, draw from ``rng``.

    Inside the block the global generator goes on where ``rng`` stands; afterwards ``rng`` stands where it came to,
    and the global one where it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng.get_state())
        yield
        rng.set_state(torch.get_rng_state())
