"""A trainer as a program of its own: shares its weights, then takes a step whenever it is told."""

from __future__ import annotations

import json
import sys

import torch

from tests.engine.test_weights import make_model, scores
from weft.checkpoint.hf import hf_tensors
from weft.dist.ipc import SharedTensors


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    torch.set_num_threads(1)
    model = make_model(1)
    theirs = sys.argv[1] == "theirs"
    with SharedTensors() as shared:
        # Under Hugging Face's names merged tensors are split, so those are copies.
        tensors = hf_tensors(model) if theirs else dict(model.named_parameters())
        say([handle.to_json() for handle in shared.share(tensors).values()])
        say(scores(model).tolist())
        for _ in sys.stdin:
            with torch.no_grad():
                for index, parameter in enumerate(model.parameters()):
                    parameter.add_(0.01 * (index + 1))
                if theirs:
                    for name, tensor in hf_tensors(model).items():
                        tensors[name].copy_(tensor)
            say(scores(model).tolist())


if __name__ == "__main__":
    main()
