"""How fast a pack trained, with the warm-up and the evaluations left out, and how much memory it took."""

import resource
import statistics
import sys
import time

import torch

WARM_UP_STEPS = 3


class Stopwatch:
    """Times optimizer updates. ``start`` and ``stop`` enclose exactly one update each."""

    def __init__(self, device: torch.device):
        self._device = device
        self._durations_s: list[float] = []

    def start(self) -> None:
        """Begin an update."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """End an update."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._durations_s.append(time.perf_counter() - self._began)

    def perf(self, samples_per_step: int, pack_size: int) -> dict[str, float]:
        """Speed of the whole pack: the median update in ms, the samples per second of all its trials.

        ``pack_size`` goes with them, because a trial in a pack is not timed alone.
        ``train_seconds`` is the sum over all updates, warm-up included.
        """
        step_s = statistics.median(self._durations_s[WARM_UP_STEPS:] or self._durations_s)
        return {
            "step_ms": step_s * 1e3,
            "samples_per_second": samples_per_step * pack_size / step_s,
            "train_seconds": sum(self._durations_s),
            "peak_memory_mb": peak_memory_mb(self._device),
            "pack_size": pack_size,
        }


def peak_memory_mb(device: torch.device) -> float:
    """The most memory in use so far, in MB (10⁶ bytes): of the GPU's tensors, or of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
