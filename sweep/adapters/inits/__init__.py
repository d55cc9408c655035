"""Initialisations: how the two factors of a LoRA start, and what follows from it."""

from sweep.adapters.inits.init import BaseWeight, Init, init_of

__all__ = ["BaseWeight", "Init", "init_of"]
