"""What a trial ran on, for its record: versions and hardware, and nothing that names a person or a host."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import sweep

PACKAGES = ("torch", "hydra-core", "wandb")


def environment(device: torch.device, base: str) -> dict[str, Any]:
    """Versions, device and ``base``, the hash of the weights that the trial started from."""
    return {
        "lora_sweep": sweep.__version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "mkl_cbwr": os.environ.get("MKL_CBWR"),
        "base": base,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
