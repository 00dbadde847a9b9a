"""Floor 9: applications on top of a model. They know a chat client, never an engine.

- ``client``: the one protocol every application speaks, over HTTP (this server or any other that
  speaks OpenAI's protocol) and in process.
- ``chunks``: documents as passages that remember their lines.
- ``rag``: retrieval with citations from one SQLite file, ranked by BM25; extractive answers
  without a model, generated ones with a client.

Later inhabitants: a trained embedding beside BM25, graph retrieval over imports and communities,
an agent loop with tools from type hints, and an MCP server and client. Nothing here imports torch
or a web framework, so that an application can be tested with a scripted client and run against a
server on another machine.
"""
