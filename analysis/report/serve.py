"""A dashboard on this machine: all sweeps, one or several while they run, and their reports. It only reads.

``python -m analysis serve outputs`` answers on the loopback alone, GET alone, and to its own name alone, so that no other
machine and no page of another site can ask. Pages are told what is new by server-sent events.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from analysis.errors import BadRequestError
from analysis.report import live_pages, report
from analysis.report.assets import ASSETS
from analysis.report.live import Live, counts
from analysis.report.sections import preliminary
from analysis.sources import cache
from analysis.sources.follow import Follower
from analysis.sources.load import load
from sweep.record import is_trial_folder
from sweep.text import say

HOST = "127.0.0.1"
NAMES = [HOST, "localhost"]
SHORTEST_PAUSE_S = 0.4
"""Seconds between two looks at a sweep; rows reach the disk twice a second."""
LARGEST_SHARE = 0.25
"""Largest share of time spent looking at a sweep, which keeps the processor free for training."""
SWITCH_S = 0.0005
"""Seconds until a thread that computes a verdict lets one that looks at files go on; each file is a turn."""
MOST_KEPT = 8
"""Rendered pages that are kept until a record changes."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
T = TypeVar("T")


def serve(outputs: Path, port: int) -> None:
    """Answer until interrupted, on any free port where ``port`` is 0.

    Raises BadRequestError where ``outputs`` is no folder or the port is taken.
    """
    if not outputs.is_dir():
        raise BadRequestError(f"there is no folder {outputs}: name the one that holds the sweeps, such as outputs")
    try:
        bound = socket.create_server((HOST, port))
    except OSError as error:
        raise BadRequestError(f"port {port} cannot be used ({error.strerror}); choose another: --port N") from None
    with bound:
        say(f"http://{HOST}:{bound.getsockname()[1]}/ shows the sweeps in {outputs}; Ctrl-C ends it")
        sys.stdout.flush()
        sys.setswitchinterval(SWITCH_S)
        config = uvicorn.Config(application(outputs), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[bound])


def application(outputs: Path) -> Starlette:
    """The pages for the sweeps in ``outputs``."""
    house = _House(outputs)
    routes = [
        Route("/", house.index, methods=["GET"]),
        Route("/sweeps/{name}", house.one, methods=["GET"]),
        Route("/sweeps/{name}/verdict", house.verdict, methods=["GET"]),
        Route("/sweeps/{name}/report", house.report, methods=["GET"]),
        Route("/compare", house.several, methods=["GET"]),
        Route("/events", house.events, methods=["GET"]),
        Mount("/assets", StaticFiles(directory=ASSETS)),
    ]
    return Starlette(
        routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=NAMES, www_redirect=False)]
    )


class _House:
    """Answers requests about the sweeps in one folder."""

    def __init__(self, outputs: Path):
        self._outputs = outputs
        self._followers: dict[str, Follower] = {}
        self._looks = anyio.CapacityLimiter(1)
        """A process has one claim on a sweep's lock file at a time, and looking takes one (see ``sweep.claim``)."""
        self._renders = anyio.CapacityLimiter(1)
        self._kept: OrderedDict[tuple[str, str], tuple[str, str]] = OrderedDict()

    async def index(self, request: Request) -> Response:
        """All sweeps with their states."""
        states = await self._look(self._states)
        return _page(live_pages.index(states))

    async def one(self, request: Request) -> Response:
        """One sweep while it runs."""
        return _page(live_pages.watched([self._folder(request.path_params["name"]).name]))

    async def several(self, request: Request) -> Response:
        """Two or more sweeps side by side: ``/compare?sweep=a&sweep=b``."""
        return _page(live_pages.watched([folder.name for folder in self._asked(request)]))

    async def verdict(self, request: Request) -> Response:
        """A part of a page: the preliminary answer from the trials that are done."""
        return await self._rendered(request, "verdict", lambda sweep: preliminary(report.answer_all(sweep)))

    async def report(self, request: Request) -> Response:
        """The report, made in memory."""
        return await self._rendered(request, "report", report.as_page)

    async def events(self, request: Request) -> Response:
        """What changes in the asked sweeps, as server-sent events: at first everything, then what is new."""
        views = [Live(folder, request.query_params.get("metric")) for folder in self._asked(request)]
        return StreamingResponse(self._told(views), media_type="text/event-stream", headers=HEADERS)

    async def _told(self, views: Sequence[Live]) -> AsyncIterator[str]:
        while True:
            began = time.monotonic()
            for view in views:
                try:
                    told = await self._look(view.update)
                except OSError as error:
                    told = {"sweep": view.name, "gone": error.strerror}
                if told is not None:
                    yield f"data: {orjson.dumps(told).decode()}\n\n"
            took = time.monotonic() - began
            yield ": still here\n\n"
            await asyncio.sleep(max(SHORTEST_PAUSE_S, took * (1 / LARGEST_SHARE - 1)))

    def _folder(self, name: str) -> Path:
        """The folder of a sweep by its name, which comes from a request. Raises HTTPException where there is none."""
        folder = next((one for one in self._sweeps() if one.name == name), None)
        if folder is None:
            raise HTTPException(404, f"there is no sweep {name!r} in {self._outputs.name}")
        return folder

    def _asked(self, request: Request) -> list[Path]:
        names = list(dict.fromkeys(request.query_params.getlist("sweep")))
        if not names:
            raise HTTPException(400, "say which sweeps: ?sweep=a&sweep=b")
        return [self._folder(name) for name in names]

    def _sweeps(self) -> list[Path]:
        return [folder for folder in sorted(self._outputs.iterdir()) if _is_sweep(folder)]

    def _states(self) -> dict[str, dict[str, int]]:
        found = {}
        for folder in self._sweeps():
            follower = self._followers.setdefault(folder.name, Follower(folder, histories=False))
            follower.look()
            found[folder.name] = counts(follower.trials.values())
        return found

    async def _look(self, look: Callable[..., T], *given: Any) -> T:
        return await anyio.to_thread.run_sync(partial(look, *given), limiter=self._looks)

    async def _rendered(self, request: Request, kind: str, render: Callable[[Any], str]) -> Response:
        """What ``render`` makes of a sweep, made anew when a record has changed."""
        folder = self._folder(request.path_params["name"])
        return _page(await anyio.to_thread.run_sync(self._render, folder, kind, render, limiter=self._renders), kind)

    def _render(self, folder: Path, kind: str, render: Callable[[Any], str]) -> str:
        key, place = cache.fingerprint(folder), (folder.name, kind)
        if self._kept.get(place, ("", ""))[0] != key:
            try:
                made = render(load(folder))
            except BadRequestError as error:
                made = live_pages.refusal(str(error))
            self._kept[place] = (key, made)
        self._kept.move_to_end(place)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[place][1]


def _is_sweep(folder: Path) -> bool:
    """Whether ``folder`` is that of a sweep that can be shown: a link or a name that cannot be printed is none."""
    if folder.is_symlink() or not folder.is_dir() or folder.name.startswith(".") or not folder.name.isprintable():
        return False
    try:
        return any(map(is_trial_folder, folder.iterdir()))
    except OSError:
        return False


def _page(content: str, kind: str = "") -> Response:
    own_policy = kind == "report"
    return HTMLResponse(
        content, headers={k: v for k, v in HEADERS.items() if not (own_policy and k.startswith("Content"))}
    )
