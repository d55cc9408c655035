"""What a trial ran on, for its record: versions and hardware, and nothing that names a person or a host."""

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import sweep

PACKAGES = ("torch", "hydra-core", "wandb", "transformers")


def environment(device: torch.device, base: str) -> dict[str, Any]:
    """Versions, device and ``base``, the hash of the weights that the trial started from."""
    return {
        "lora_sweep": sweep.__version__,
        "code": _code(),
        "python": platform.python_version(),
        **{package: version for package in PACKAGES if (version := _version(package))},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "mkl_cbwr": os.environ.get("MKL_CBWR"),
        "base": base,
    }


@cache
def _code() -> str:
    """The hash of every source file of the harness: it shows changes that raised no version."""
    folder = Path(sweep.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _processor() -> str:
    """The processor's name where Linux tells it, otherwise what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
