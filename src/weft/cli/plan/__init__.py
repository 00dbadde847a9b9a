"""``weft plan``: what training and serving will take, before anything runs.

- ``app.py``       the table of verbs, each named as text and imported only when it is called.
- ``options.py``   options that several verbs share: output, layout, deployment, traffic.
- ``inputs.py``    names to objects: models, hardware, counts such as 2T, times such as 300ms.
- ``output.py``    an ``Answer`` as text, JSON or a page.
- one file per verb (``train.py`` is ``weft plan train``): options in, an ``Answer`` out.
"""
