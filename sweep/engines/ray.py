"""Packs as Ray tasks. No shared folder is needed: bases and data go, and files come back, through the object store."""

import hashlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from sweep.claim import LOCK_FILE
from sweep.engines.cluster import ClusterEngine
from sweep.engines.parcel import Parcel, parcel_of, train_parcel
from sweep.errors import ConfigError
from sweep.files import replace_file
from sweep.packs.base import base_file
from sweep.packs.pack import Pack
from sweep.packs.train_pack import record_claimed_failure
from sweep.record import RECORD_FILE, Record
from sweep.resolve import ResolvedTrial
from sweep.store.skip import decide
from sweep.store.store import Store, writing

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode

RETRIES = 3
"""How often Ray runs a pack again whose worker or node was lost."""

ANSWERS_S = 10.0

Files = dict[str, bytes]
Left = tuple[list[dict[str, Any]], Files]
"""What a node gives back: the records as plain values, and every file that the trials left."""


class RayEngine(ClusterEngine):
    """Packs on the Ray cluster at ``address``, or on the one that RAY_ADDRESS names."""

    start_s = 5.0

    def connect(self) -> None:
        """Join the cluster. Raises ConfigError where it does not answer."""
        address = self._options.address
        if not ray.is_initialized():
            try:
                check_reachable(address)
                ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
            except (OSError, RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise ConfigError(
                    [
                        f"hydra.launcher.address = {address!r}: no Ray cluster to work with ({reason}); start one "
                        f"with: ray start --head"
                    ]
                ) from None

    def places(self, trials: Sequence[ResolvedTrial]) -> int:
        """As many as the cluster has CPUs, or GPUs, for."""
        there = ray.cluster_resources()
        by_gpu = there.get("GPU", 0) // self._options.gpus if self._options.gpus else float("inf")
        return max(1, int(min(by_gpu, there.get("CPU", 1) // max(1, self._options.cpus))))

    def run(
        self, packs: Sequence[Pack], store: Store, mode: "Mode | None", workers: int, on_steps: Callable[[int], None]
    ) -> Generator[list[Record], None, None]:
        """Train the packs; the claim on their trials is the driver's, for nodes do not see the sweep's folder."""
        with store.claim([trial for pack in packs for trial in pack.trials]) as ours:
            free = {trial.id for trial in ours if decide(trial, store) is None}
            waiting = [pack for pack in packs if all(trial.id in free for trial in pack.trials)]
            running: dict[Any, Pack] = {}
            objects: dict[Path, Any] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < workers:
                        pack = waiting.pop(0)
                        running[self._submit(pack, store, mode, objects)] = pack
                    [task], _ = ray.wait(list(running))
                    pack = running.pop(task)
                    try:
                        records, files = ray.get(task)
                    except RayError as error:
                        crashed = not isinstance(error, RayTaskError | TaskCancelledError)
                        if crashed and len(pack.trials) > 1:  # a single one of its trials may be the cause
                            waiting = [*pack.halves(), *waiting]
                            continue
                        yield record_claimed_failure(pack.trials, store, error)
                    else:
                        left = [Record.of(values) for values in records]
                        _unpack(files, left, store, mirrored=mode is not None)
                        yield left
                    on_steps(len(pack.trials) * pack.steps)
            finally:
                for task in running:
                    ray.cancel(task, force=True)

    def _submit(self, pack: Pack, store: Store, mode: "Mode | None", objects: dict[Path, Any]) -> Any:
        options = self._options
        inputs = inputs_of(pack.trials[0])
        for path in inputs.values():
            if path not in objects:
                objects[path] = ray.put(path.read_bytes())
        memory = int(1e9 * self.requested_gb(pack))
        task = ray.remote(_on_node).options(
            num_cpus=options.cpus, num_gpus=options.gpus, memory=memory, max_retries=RETRIES, name="lora-sweep pack"
        )
        parcel = parcel_of(pack.trials, store, mode)
        return task.remote(parcel, list(inputs), *(objects[path] for path in inputs.values()))


def check_reachable(address: str | None) -> None:
    """Raise OSError where nothing listens at ``host:port``: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), ANSWERS_S).close()


def inputs_of(trial: ResolvedTrial) -> dict[str, Path]:
    """The files that the trials of ``trial``'s task read: by the place that they get on a node, where they are here."""
    options, cache_folder = trial.task, trial.cache_folder
    inputs = {}
    if (base := base_file(options, trial.data, cache_folder)).exists():
        inputs["cache/bases/" + base.name] = base
    inputs |= {f"cache/{path.relative_to(cache_folder)}": path for path in options.cached_files(cache_folder)}
    for name in sorted(options.own_paths()):
        own = Path(getattr(options, name))
        files = sorted(path for path in own.rglob("*") if path.is_file()) if own.is_dir() else [own]
        inputs |= {
            f"{name}/{own.name}/{path.relative_to(own)}" if own.is_dir() else f"{name}/{own.name}": path
            for path in files
        }
    return inputs


def _on_node(parcel: Parcel, places: Sequence[str], *contents: bytes) -> Left:
    """Train a parcel in a temporary folder of this node, and return what it left there."""
    inputs = _place(dict(zip(places, contents, strict=True)))
    for config in parcel["configs"]:
        config["cache"] = str(inputs / "cache")
        for place in places:
            name, own, *_ = place.split("/")
            if name in config["task"]:
                config["task"][name] = str(inputs / name / own)
    with tempfile.TemporaryDirectory(prefix="lora-sweep-") as name:
        sweep = Path(name)
        records = train_parcel(parcel | {"sweep": name})
        return records, {str(path.relative_to(sweep)): path.read_bytes() for path in _files(sweep)}


def _place(inputs: Mapping[str, bytes]) -> Path:
    """Write the inputs of a pack into this node's cache, unless they are there; other contents get another folder."""
    digest = hashlib.sha256()
    for place, content in sorted(inputs.items()):
        digest.update(place.encode() + hashlib.sha256(content).digest())
    folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lora-sweep" / digest.hexdigest()[:16]
    for place, content in inputs.items():
        if not (path := folder / place).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
    return folder


def _files(sweep: Path) -> Iterator[Path]:
    return (path for path in sweep.rglob("*") if path.is_file() and path.name != LOCK_FILE)


def _unpack(files: Files, records: Sequence[Record], store: Store, mirrored: bool) -> None:
    """Put what a node gave back into the sweep's folder: the records last, each once its trial's files are there."""
    if mirrored:
        from sweep.trackers.wandb import set_aside

        for record in records:
            set_aside(store.folder, record.trial_id)
    last = {name for name in files if name.endswith(f"/{RECORD_FILE}")}
    with writing(store.folder):
        for name in files.keys() - last:
            (store.folder / name).parent.mkdir(parents=True, exist_ok=True)
            replace_file(store.folder / name, files[name])
    with store.write_records_atomically(records):
        for name in last:
            replace_file(store.folder / name, files[name])
