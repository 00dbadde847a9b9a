"""A trainer in another process: after each sync the engine's logits are the trainer's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine.support import GREEDY, make_llm
from tests.engine.test_weights import PROMPT, make_model, scores
from weft.checkpoint.hf import hf_tensors
from weft.dist.group import ProcessGroup
from weft.dist.ipc import TensorHandle, rebuild
from weft.dist.launch import run_distributed
from weft.dist.tensor_stream import receive_tensors, send_tensors

ROOT = Path(__file__).parents[2]


class Trainer:
    """The other program; ``step`` returns its logits after one more change of its weights."""

    def __init__(self, names: str) -> None:
        command = [sys.executable, "-m", "tests.engine.shared_trainer", names]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        handles = [TensorHandle.from_json(text) for text in self._hear()]
        self.tensors = {handle.info.name: rebuild(handle) for handle in handles}
        self.logits = torch.tensor(self._hear())

    def step(self) -> torch.Tensor:
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return torch.tensor(self._hear())

    def close(self) -> None:
        self._process.communicate()

    def _hear(self):
        return json.loads(self._process.stdout.readline())


@pytest.fixture(params=["ours", "theirs"])
def trainer(request):
    program = Trainer(request.param)
    yield program
    program.close()


@pytest.mark.dist
def test_weights_come_through_shared_memory(trainer):
    llm = make_llm(decoder=make_model(2))
    llm.weights.update(trainer.tensors)
    assert torch.equal(scores(llm.model), trainer.logits)
    for version in (2, 3):
        llm.generate([PROMPT], GREEDY)
        logits = trainer.step()
        assert not torch.equal(scores(llm.model), logits)
        assert llm.weights.update(trainer.tensors).weight_version == version
        assert torch.equal(scores(llm.model), logits)
        assert llm.generate([PROMPT], GREEDY)[0].num_cached_tokens == 0


@pytest.mark.dist
@pytest.mark.parametrize("trainer", ["ours"], indirect=True)
def test_an_engine_can_compute_with_another_programs_weights_themselves(trainer):
    """Bound across processes: a step of the trainer is all there is to a sync."""
    decoder = make_model(2)
    for name, parameter in decoder.named_parameters():
        parameter.data = trainer.tensors[name]
    llm = make_llm(decoder=decoder)
    assert torch.equal(scores(llm.model), trainer.logits)
    logits = trainer.step()
    llm.bump_weight_version()
    assert torch.equal(scores(llm.model), logits)


def train_or_serve(names: str, bucket_bytes: int, staged: bool) -> None:
    """Rank 0 serves; rank 1 trains and broadcasts its weights twice."""
    group = ProcessGroup.current()
    trainers = [make_model(1), make_model(3)]
    if group.rank == 1:
        for model in trainers:
            tensors = hf_tensors(model) if names == "theirs" else model.state_dict()
            send_tensors(tensors, group, bucket_bytes=bucket_bytes)
        return
    llm = make_llm(decoder=make_model(2))
    for version, model in enumerate(trainers, start=1):
        incoming = receive_tensors(1, group)
        with llm.weights.begin(incoming.infos, staged=staged) as update:
            for bucket in incoming.buckets:
                update.write(bucket)
        assert llm.weight_version == version
        assert torch.equal(scores(llm.model), scores(model))


@pytest.mark.dist
@pytest.mark.parametrize(
    ("names", "bucket_bytes", "staged"),
    [("ours", 1, False), ("theirs", 5000, False), ("theirs", 10**7, True)],
)
def test_weights_come_by_broadcast_in_buckets(names, bucket_bytes, staged):
    run_distributed(train_or_serve, 2, names, bucket_bytes, staged)
