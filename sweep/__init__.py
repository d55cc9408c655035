"""The harness: composes, trains and records sweeps of LoRA trials.

``sweep.run(…)`` is ``python -m sweep -m …`` from Python.
"""

import os

from sweep.child import run
from sweep.errors import CommandError

# MKL reads this once, before torch is imported: its kernels then give one row the same bits whatever the
# other rows are, which is what makes a packed trial equal to the same trial alone.
os.environ.setdefault("MKL_CBWR", "AVX512,STRICT")

__all__ = ["CommandError", "run"]
__version__ = "0.1.0"
