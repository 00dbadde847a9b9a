"""Floor 8: the HTTP server that speaks OpenAI's protocol in front of an engine.

``create_engine_app(engine, tokenizer, model_name)`` builds a Starlette application and
``run_server`` runs it; everything between the socket and the engine lives here.

- ``backend``: what the server needs of an engine, as protocols; the engine never imports us.
- ``protocol``, ``messages``, ``body``: request bodies. Unknown fields are refused, never ignored.
- ``structured``: what an answer must look like, under OpenAI's and vLLM's names;
  ``tool_choice`` which calls a chat forces or constrains, in the model's own format.
- ``prompts``: text, token ids and chat messages become prompt tokens, or a refusal with numbers.
- ``generation``: one HTTP request as one or many engine requests, merged, timed and aborted.
- ``completions``, ``chat``: the two shapes of answer; ``logprobs`` their two log-probability forms.
- ``names``, ``adapters``: adapters as further model names; loading them while serving.
- ``encoder``, ``embeddings``: texts to vectors; a server of an encoder generates nothing.
- ``rerank``, ``scoring``: pairs of texts scored by an encoder's cosine or a decoder's likelihood.
- ``sse``: event streams that notice a client that went away.
- ``errors``: every failure as ``{"error": {message, type, param, code}}`` with its status.
- ``admin``: pause, sleep and new weights, for whoever has the admin key; hidden without one.
- ``metrics``, ``health``, ``info``: Prometheus, liveness, models and tokenizer endpoints.
- ``limits``: configuration, body size, API key, host and content-type checks.
- ``pages``: static files with a strict content-security policy (the folder is passed in,
  because the web page is on a higher floor).
- ``service``: the state the endpoints share; ``app``, ``local``: an application around any engine
  and around one of this process; ``server``: running it until a signal drains it.

pydantic is used at this edge only; Starlette and uvicorn are used nowhere else in weft.
"""
