"""The harness: composes, trains and records sweeps of LoRA trials."""

import os

# MKL reads this once, before torch is imported: its kernels then give one row the same bits whatever the
# other rows are, which is what makes a packed trial equal to the same trial alone.
os.environ.setdefault("MKL_CBWR", "AVX512,STRICT")

__version__ = "0.1.0"
