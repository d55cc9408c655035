"""Random numbers: one generator for each seed, purpose and name, so that no draw depends on its neighbours."""

import hashlib

import torch


def generator(seed: int, purpose: str, name: str = "") -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments.

    ``purpose`` says what the numbers are for (``init``, ``data``, ``dropout``), ``name`` for which part (a
    layer, usually): adapting one more layer, or packing one more trial, changes nobody else's numbers.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
