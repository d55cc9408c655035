"""Initialisations: how the two factors of a LoRA start, and what follows from it."""

from sweep.adapters.inits.choose import init_of
from sweep.adapters.inits.init import BaseWeight, Init

__all__ = ["BaseWeight", "Init", "init_of"]
