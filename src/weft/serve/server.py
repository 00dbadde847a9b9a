"""Running an application: a socket with clear errors, and a drain on the first signal."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

import uvicorn
from starlette.applications import Starlette

from weft.core.errors import ResourceError
from weft.serve.limits import ServerConfig

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 2048


def bind(config: ServerConfig) -> socket.socket:
    """Return a listening socket.

    Raises:
        ResourceError: the port is in use (the fix names the next free one), needs rights, or the
            address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _bind_error(config, error) from error
    except BaseException:
        listener.close()
        raise
    return listener


def next_free_port(host: str, port: int) -> int | None:
    """Return the first port above ``port`` that can be bound now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port + 1, min(port + 200, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, candidate))
                return candidate
    return None


def url_of(listener: socket.socket) -> str:
    """Return the address to open in a browser."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn's server, which drains on the first signal and returns instead of re-raising it.

    From the first signal on, /health answers 503, new work is refused, and running requests have
    ``drain_timeout_s`` to finish. A second signal ends at once.
    """

    def __init__(self, app: Starlette, config: ServerConfig, *, access_log: bool = False) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=access_log,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(config.drain_timeout_s)),
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while serving; restore the old handlers afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; on a second signal give up on what still runs."""
        if self.should_exit:
            self.force_exit = True
        self.drain()

    def drain(self) -> None:
        """Refuse new work and end when the running requests have finished."""
        self._app.state.service.draining = True
        self.should_exit = True


def run_server(
    app: Starlette,
    config: ServerConfig,
    *,
    on_ready: Callable[[str], None] | None = None,
    access_log: bool = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain and return. The engine stays open.

    ``on_ready`` gets the URL once the socket listens.

    Raises:
        ResourceError: the port cannot be had.
    """
    listener = bind(config)
    try:
        server = Server(app, config, access_log=access_log)
        if on_ready is not None:
            on_ready(url_of(listener))
        server.run(sockets=[listener])
    finally:
        listener.close()


class BackgroundServer:
    """Serves from a thread, for notebooks, the quick start and tests.

    ::

        with BackgroundServer(app, ServerConfig(port=0)) as server:
            print(server.url)
    """

    def __init__(self, app: Starlette, config: ServerConfig) -> None:
        self._listener = bind(config)
        self._server = Server(app, config)
        self.url = url_of(self._listener)
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._listener]},
            name="weft-serve",
            daemon=True,
        )

    def __enter__(self) -> BackgroundServer:
        # The socket already listens: connections made before the loop runs wait in the backlog.
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drain and end."""
        self._server.drain()
        self._thread.join()
        self._listener.close()


def _bind_error(config: ServerConfig, error: OSError) -> ResourceError:
    where = f"{config.host}:{config.port}"
    if error.errno == errno.EADDRINUSE:
        free = next_free_port(config.host, config.port)
        fix = f"use --port {free}" if free else "stop the other server"
        return ResourceError(f"{where} is in use by another program", fix=fix)
    if error.errno in (errno.EACCES, errno.EPERM):
        fix = "choose a port of 1024 or above, such as --port 8000"
        return ResourceError(f"no permission to listen on {where}", fix=fix)
    reason = error.strerror or str(error)
    return ResourceError(
        f"cannot listen on {where}: {reason}", fix="use --host 127.0.0.1, or --host 0.0.0.0 for all"
    )
