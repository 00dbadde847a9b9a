"""What the server accepts: configuration, and the checks that run before any endpoint."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from weft.core.errors import ConfigError
from weft.serve.errors import AuthenticationError, HostError, respond

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
PUBLIC_PATHS = ("/health",)


@dataclass(frozen=True)
class ServerConfig:
    """Where to listen and what to accept.

    Attributes:
        host: Address to bind. The default is reachable from this machine only.
        port: TCP port; 0 lets the system choose a free one.
        api_key: Clients must send it as ``Authorization: Bearer KEY``. It protects every route
            but /health and the files of the chat page, which hold no data.
        admin_key: Key for pausing, sleeping and changing weights (``weft.serve.admin``); without
            one there are no such routes.
        max_body_bytes: Larger request bodies are refused with 413.
        max_choices: Most sequences (n times prompts) of one request.
        max_inputs: Most texts of one request for vectors or scores; OpenAI's limit by default.
        drain_timeout_s: How long running requests may finish after SIGTERM or Ctrl-C.
        allowed_hosts: Host names this server answers for. Empty means: this machine's loopback
            names when bound to loopback (which stops DNS rebinding), any name otherwise.
        allowed_origins: Web origins whose pages may call the API (CORS); none by default.
        allow_adapter_updates: Let clients load adapters from folders of this machine and unload
            them.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    admin_key: str | None = None
    max_body_bytes: int = 16 * 2**20
    max_choices: int = 64
    max_inputs: int = 2048
    drain_timeout_s: float = 30.0
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allow_adapter_updates: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}", fix="choose 0 to 65535")
        for name in ("api_key", "admin_key"):
            key = getattr(self, name)
            if key is not None and not key.strip():
                raise ConfigError(f"{name} is empty", fix=f"give a key or leave {name} out")
        if self.admin_key is not None and self.admin_key == self.api_key:
            raise ConfigError(
                "admin_key is the API key, which every client has", fix="choose another admin_key"
            )
        for name in ("max_body_bytes", "max_choices", "max_inputs", "drain_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"{name} must be > 0")

    @property
    def hosts(self) -> frozenset[str] | None:
        """The accepted host names in lower case; none means any."""
        if self.allowed_hosts:
            return None if "*" in self.allowed_hosts else _lower(self.allowed_hosts)
        return _lower(LOOPBACK_HOSTS) if self.host in LOOPBACK_HOSTS else None


class GuardMiddleware:
    """Refuses requests for foreign hosts and requests without the API key."""

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig,
        public: Iterable[str],
        admin: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._config = config
        self._admin = frozenset(admin)
        self._public = frozenset(public) | frozenset(PUBLIC_PATHS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        error = self._check_host(headers) or self._check_key(scope["path"], headers)
        if error is not None:
            await respond(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> HostError | None:
        hosts = self._config.hosts
        name = host_name(headers.get("host", ""))
        if hosts is None or name in hosts:
            return None
        return HostError(
            f"this server does not answer for the host {name!r}",
            fix="use 127.0.0.1, or start it with allowed_hosts",
        )

    def _check_key(self, path: str, headers: Headers) -> AuthenticationError | None:
        key = self._config.admin_key if path in self._admin else self._config.api_key
        if key is None or path in self._public:
            return None
        given = headers.get("authorization", "")
        scheme, _, token = given.partition(" ")
        # Compared in constant time, so that answers do not tell how much of a guess was right.
        if scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), key.encode()):
            return None
        return AuthenticationError(
            "the API key is wrong" if token else "an API key is needed",
            fix="send 'Authorization: Bearer KEY' with the key the server was started with"
            + (" as admin_key" if path in self._admin else ""),
        )


def host_name(header: str) -> str:
    """Return the name in a Host header, without port and brackets, in lower case.

    >>> host_name("[::1]:8000"), host_name("LocalHost:80")
    ('::1', 'localhost')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)
