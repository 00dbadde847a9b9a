"""What arrives: requests with lengths, times and shared beginnings, synthetic or recorded.

- ``arrival.py``   ``Arrival`` and ``TraceArrival``: one request, made of tokens on demand. Only
  which tokens are equal matters to a scheduler, so tokens are made up from names of content.
- ``lengths.py``   samplers of prompt and output lengths.
- ``arrivals.py``  arrival times: Poisson, Gamma, all at once; and who shares which beginning.
- ``source.py``    the two kinds of load: an open loop has its times, a closed loop has clients
  that send the next request when the last one is answered.
- ``traces.py``    readers of Mooncake and Azure traces; a bad line is named by file and number.
- ``log.py``       weft's own request log, written by servers and simulations, read as workload.
"""
