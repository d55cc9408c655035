"""Commands in processes that are forked from one that has imported torch, Hydra and the analysis already.

Importing is most of what a small command costs. A forked command has its own folder, environment, output and exit code,
as one that is started; but it does not inherit what the test has changed in its own process, such as its limits.
"""

import atexit
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module

from sweep.engines.warm_up import IMPORTED_BY_A_RUN

IMPORTED = (
    "sweep.cli.run",
    "sweep.launch.launch",
    "sweep.trackers.wandb",
    *IMPORTED_BY_A_RUN,
    "analysis.report.report",
)
TIMEOUT_S = 300.0
LARGEST_REQUEST = 2**20


@dataclass(frozen=True)
class Request:
    """``python -m module`` with exactly this environment and, unless it is negative, this umask."""

    module: str
    arguments: Sequence[str]
    cwd: str
    environment: Mapping[str, str]
    umask: int


def forked(request: Request, path: str) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for its end.

    ``path`` is the PYTHONPATH of the process that it is forked from; its own may have more folders.
    """
    connection = _server(path)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        socket.send_fds(connection, [json.dumps(asdict(request)).encode()], [output.fileno(), errors.fileno()])
        process = int(connection.recv(LARGEST_REQUEST))
        try:
            code = int(connection.recv(LARGEST_REQUEST))
        except TimeoutError:
            os.kill(process, 9)
            connection.recv(LARGEST_REQUEST)
            raise
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess([request.module, *request.arguments], code, *said)


@cache
def _server(path: str) -> socket.socket:
    """The connection to the process that commands are forked from, which ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(TIMEOUT_S)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "HYDRA_"))}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            env=kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    atexit.register(process.wait)
    atexit.register(ours.close)  # which comes first, and ends it
    return ours


def _serve(connection: socket.socket) -> str:
    """Fork a process for each request, and return in it the module that it is to run."""
    before = dict(os.environ)
    for name in IMPORTED:
        import_module(name)
    made = {key: value for key, value in os.environ.items() if before.get(key) != value}
    gc.freeze()  # or each process would go through all that was imported at its exit
    while True:
        message, files, _, _ = socket.recv_fds(connection, LARGEST_REQUEST, 2)
        if not message:
            sys.exit()
        request = Request(**json.loads(message))
        if child := os.fork():
            for file in files:
                os.close(file)
            connection.send(str(child).encode())
            _, status = os.waitpid(child, 0)
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        connection.close()
        for file, standard in zip(files, (1, 2), strict=True):
            os.dup2(file, standard)
            os.close(file)
        os.environ.clear()
        os.environ.update(made | request.environment)
        os.chdir(request.cwd)
        if request.umask >= 0:
            os.umask(request.umask)
        own_path = request.environment["PYTHONPATH"].split(os.pathsep)
        sys.path[:1] = [request.cwd, *(folder for folder in own_path if folder not in sys.path)]
        import_module("sweep.registry").installed.cache_clear()  # which has seen the plug-ins of one path only
        sys.argv[1:] = request.arguments
        return request.module


if __name__ == "__main__":
    runpy.run_module(_serve(socket.socket(fileno=int(sys.argv[1]))), run_name="__main__", alter_sys=True)
