"""Floor 11: the chat page, hand-written, without a build step and without the network.

``STATIC_FOLDER`` holds plain files that ``weft.serve`` sends as they are:

- ``chat.html``, ``style.css``, ``icon.svg``: structure and looks, light and dark, phone and desk;
- ``app.js``: the page's state and what happens when; ``view.js``: messages as DOM nodes;
- ``api.js``: the server's endpoints and its event stream; ``markdown.js``: a small, safe Markdown;
- ``history.js``, ``settings.js``: what the browser remembers.

The page works under a policy that forbids inline code and other origins. Model output only ever
becomes text nodes; nothing is parsed as HTML.
"""

from __future__ import annotations

from pathlib import Path

STATIC_FOLDER = Path(__file__).parent / "static"
