"""A real SLURM on loopback, as Debian packages it: one controller and one node with two CPUs.

    python tests/support/loopback_slurm.py     starts it, says how to use it, and stops it when Enter is pressed

It needs root and the programs of the packages slurmctld, slurmd and munge, and touches no other SLURM.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch")
READY_S = 30.0
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1
MpiDefault=none
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory_mb} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why SLURM cannot be started here; empty where it can."""
    if os.geteuid() != 0:
        return "SLURM on loopback needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)} (apt-get install slurmctld slurmd munge)" if absent else ""


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Run SLURM; yields the environment variables with which its commands find it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    everything = os.environ | environment
    try:
        _configure(folder)
        here = [f"--{name}={folder}/{file}" for name, file in _MUNGE_FILES.items()]
        for daemon in (["munged", *here], ["slurmctld"], ["slurmd"]):
            subprocess.run(daemon, env=everything, check=True, capture_output=True, timeout=READY_S)
        _await_idle(everything)
        yield environment
    finally:
        _end_jobs(everything)
        for name in ("slurmd", "slurmctld", "munged"):
            _kill(folder / f"{name}.pid")
        shutil.rmtree(folder, ignore_errors=True)


_MUNGE_FILES = {
    "key-file": "munge.key",
    "socket": "munge.socket",
    "pid-file": "munged.pid",
    "log-file": "munged.log",
    "seed-file": "munge.seed",
}


def _configure(folder: Path) -> None:
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    controller_port, node_port = _free_ports()
    text = CONFIGURATION.format(
        host=socket.gethostname().split(".")[0],
        folder=folder,
        memory_mb=int(0.9 * memory_mb),
        controller_port=controller_port,
        node_port=node_port,
    )
    (folder / "slurm.conf").write_text(text)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


def _await_idle(environment: dict[str, str]) -> None:
    latest = time.monotonic() + READY_S
    said = ""
    while "idle" not in said:
        if time.monotonic() > latest:
            raise TimeoutError(f"SLURM is not ready after {READY_S:.0f} s: {said}")
        time.sleep(0.1)
        answer = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
        )
        said = answer.stdout + answer.stderr


def _end_jobs(environment: dict[str, str]) -> None:
    subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True, check=False)
    latest = time.monotonic() + READY_S
    while time.monotonic() < latest:
        if not subprocess.run(["squeue", "-h"], env=environment, capture_output=True, check=False).stdout:
            return
        time.sleep(0.1)


def _kill(pid_file: Path) -> None:
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


if __name__ == "__main__":
    if reason := missing():
        raise SystemExit(reason)
    with slurm() as variables:
        print("\n".join(f"export {name}={value}" for name, value in variables.items()))
        input("SLURM runs; use it in another terminal with the line above. Enter stops it.\n")
