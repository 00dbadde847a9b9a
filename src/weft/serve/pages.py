"""Static files with a strict content-security policy."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weft.core.files import require_file, require_folder

# Everything comes from this server: no inline script or style, no other origin, no framing.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
INDEX = "chat.html"


def page_routes(folder: Path) -> Iterator[Route]:
    """Yield a route for the index page and one for each file beside it.

    The files are read once and served by exact name, so no request can name another file.

    Raises:
        InputFileError: the folder or its index page is missing.
    """
    folder = require_folder(folder)
    yield _route("/", require_file(folder / INDEX))
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".html", ".css", ".js", ".svg", ".webmanifest"):
            yield _route(f"/{path.name}", path)


def _route(url: str, path: Path) -> Route:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"

    async def serve_file(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=SECURITY_HEADERS)

    return Route(url, serve_file)
