"""The interface in a browser: textual-serve on loopback, with one interface process for each tab.

Any web page can reach loopback ports too. So a request must name this server as its host, come from its own page,
and have the token from the printed address (later from a cookie). The page loads nothing from other servers.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

from tui.launcher import NodeLauncher, StartError

HOST = "127.0.0.1"
COOKIE = "kekahyde"
MAX_SESSIONS = 16
"""Most tabs at once; each is a process of about 60 MB."""
PAGE = Path(__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class InterfaceServer(Server):
    """textual-serve for one node, behind a token."""

    def __init__(self, data_dir: Path) -> None:
        command = shlex.join([sys.executable, "-m", "tui", str(data_dir)])
        super().__init__(command, host=HOST, port=0, title="Kekahyde", templates_path=str(PAGE))
        self.token = secrets.token_urlsafe(24)
        self._sessions = 0

    async def application(self) -> web.Application:
        """The aiohttp application with its checks."""
        app = await self._make_app()
        app.middlewares.append(self._check)
        app.router.add_static("/page", PAGE)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Prints nothing; the address is printed once the socket listens."""

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = f"{HOST}:{self.port}"
        if request.host != host:
            raise web.HTTPForbidden(text=f"This is {host}: open the address that kekahyde-node printed.")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise web.HTTPForbidden(text=f"Pages from {origin} may not use this interface.")
        shown = request.query.get("token") or request.cookies.get(self._cookie, "")
        if not hmac.compare_digest(shown.encode(), self.token.encode()):
            raise web.HTTPForbidden(text="The token is missing: open the whole address that kekahyde-node printed.")
        if request.path == "/" and "token" in request.query:
            return self._remember()
        response = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = POLICY.format(host=host)
            response.headers["Referrer-Policy"] = "no-referrer"
            response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @property
    def _cookie(self) -> str:
        return f"{COOKIE}-{self.port}"  # cookies of one host are shared by its ports

    def _remember(self) -> web.Response:
        """Move the token from the address bar and the history into a cookie."""
        response = web.HTTPSeeOther("/")
        response.set_cookie(self._cookie, self.token, httponly=True, samesite="Strict")
        return response

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        if request.headers.get("Origin") is None:
            raise web.HTTPForbidden(text="Only the page of this interface may connect.")
        if self._sessions >= MAX_SESSIONS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_SESSIONS} tabs are open: close one.")
        self._sessions += 1
        try:
            return await super().handle_websocket(request)
        finally:
            self._sessions -= 1

    async def listen(self, runner: web.AppRunner, port: int | None) -> str:
        """Bind, and return the address to open, with the token."""
        site = web.TCPSite(runner, HOST, port or 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self.public_url = f"http://{HOST}:{self.port}"
        return f"{self.public_url}/?token={self.token}"


async def serve_interface(launcher: NodeLauncher, port: int | None, say: Callable[[str], None]) -> str | None:
    """Serve until a signal; returns what went wrong, or None. `say` gets the address as soon as it works."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server = InterfaceServer(launcher.place.data_dir)
    runner = web.AppRunner(await server.application(), shutdown_timeout=2.0, access_log=None)
    try:
        await launcher.ensure()
        await runner.setup()
        say(await server.listen(runner, port))
        await stopping.wait()
    except StartError as exc:
        return str(exc)
    except OSError as exc:
        return f"cannot listen on {HOST}:{port}: {exc.strerror}; choose another one with --web-port"
    finally:
        await runner.cleanup()
        await launcher.stop()
    return None


def serve_page(data_dir: Path, node_command: Sequence[str] | None, port: int | None) -> str | None:
    """Serve the interface of a data directory's node, and print its address on stdout."""
    launcher = NodeLauncher(data_dir, node_command)
    return asyncio.run(serve_interface(launcher, port, lambda address: print(address, flush=True)))
