"""Teach a frozen model with a low-rank adapter; save the adapter, and merged, a plain checkpoint.

python examples/lora_finetune.py runs/quickstart/model --out runs/lora --steps 50
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch

from weft.adapt import lora
from weft.adapt.peft import save_peft
from weft.checkpoint.hf import load_model, save_model
from weft.core.runs import RunDirectory
from weft.data.examples import ExampleLoader
from weft.data.tasks.sorting import Sorting
from weft.data.tasks.task import demonstration
from weft.text.render import Renderer
from weft.text.tokenizer import Tokenizer
from weft.train.loop_config import LoopConfig
from weft.train.objective import NextTokenObjective
from weft.train.optim import OptimizerConfig
from weft.train.trainer import Trainer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/lora"))
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args(arguments)

    model, tokenizer = load_model(options.model, dtype=torch.float32), Tokenizer.load(options.model)
    names = lora.inject(model, lora.LoRAConfig(rank=8))
    print(f"{len(names)} layers adapted")
    renderer, problems = Renderer(tokenizer), Sorting().problems("train", seed=0)
    examples = [renderer.render(demonstration(p)) for p in itertools.islice(problems, 500)]
    loader = ExampleLoader(examples, tokens_per_batch=512, sequence_length=128, seed=0)
    config = LoopConfig(
        steps=options.steps,
        sequence_length=128,
        tokens_per_step=512,
        precision="fp32",
        optimizer=OptimizerConfig(name="adamw", lr=2e-3, weight_decay=0.0),
    )
    with RunDirectory(options.out).open(config) as events:
        folder = options.out / "checkpoints"
        result = Trainer(model, NextTokenObjective(), loader, config, folder=folder).run(events)
    save_peft(lora.adapter_of(model), options.out / "adapter", model, base=options.model)
    lora.merge(model)
    save_model(model, options.out / "model", tokenizer=tokenizer)
    print(f"loss {result.loss:.2f} after {result.steps} steps; wrote {options.out / 'model'}")


if __name__ == "__main__":
    main()
