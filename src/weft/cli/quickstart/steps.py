"""The steps of the quick start. Each writes into its own folder and returns plain numbers."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from weft.align.grpo import run_grpo
from weft.checkpoint.hf import load_model
from weft.cli.data import print_manifest
from weft.cli.doctor import examine, rows
from weft.cli.train import text_sampler, tokenize
from weft.core.console import LiveLine, console, format_bytes, format_count, format_duration, table
from weft.core.environment import peak_memory_bytes
from weft.core.runs import RunDirectory
from weft.data.build import build_corpus
from weft.data.corpus import Corpus
from weft.data.shards import TokenShards
from weft.data.tasks.catalog import open_task
from weft.data.tasks.docstrings import Docstrings
from weft.data.tasks.task import Problem, Task, demonstration, sample
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.evals.exact_match import ExactMatch, exact_match
from weft.evals.perplexity import measure_perplexity
from weft.models.decoder import Decoder
from weft.plan.figure import Figure
from weft.plan.memory import training_memory
from weft.plan.parameters import count_parameters
from weft.plan.training import estimate_training
from weft.recipes import quickstart as recipe
from weft.recipes.quickstart import QuickstartConfig
from weft.spec import HardwareSpec
from weft.text.render import Renderer
from weft.text.tokenizer import Tokenizer
from weft.text.train import train_bpe
from weft.train.pretrain import run_pretrain
from weft.train.sft import run_sft
from weft.train.trainer import Hook

Result = dict[str, Any]

SAMPLE_PROMPT = '    """Return '
# What a Python process with torch loaded takes before it does anything.
RUNTIME_BYTES = 400 * 2**20
MEMORY_INTERVAL = 1.5
PROBE_INTERVAL_S = 5.0
NUM_PROBES = 150


class Steps:
    """The steps over one run folder; later ones read what earlier ones wrote."""

    def __init__(self, config: QuickstartConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder

    @property
    def model_folder(self) -> Path:
        """The finished model."""
        return self.folder / "model"

    def doctor(self) -> Result:
        """Measure this machine."""
        result = examine()
        console.print(table("", ("what", "found"), rows(result), numbers=False))
        for warning in result["warnings"]:
            console.print(f"warning: {warning}", markup=False)
        return {"hardware": result["hardware"], "num_threads": result["num_threads"]}

    def corpus(self) -> Result:
        """Read, clean and deduplicate the text."""
        config = recipe.corpus(self.config)
        with LiveLine("documents", total=None) as line:
            manifest = build_corpus(
                config, self.folder / "corpus", progress=lambda n: line.update(n, f"{n} kept")
            )
        print_manifest(manifest)
        return {"corpus_sha256": manifest["sha256"], "num_bytes": manifest["train"]["num_bytes"]}

    def tokenizer(self) -> Result:
        """Train the tokenizer and turn the corpus into token shards."""
        corpus = Corpus(self.folder / "corpus")
        tokenizer = train_bpe(corpus.train_texts(), self.config.vocab_size)
        tokenizer.save(self.folder / "tokenizer")
        shards = tokenize(corpus, tokenizer, self.folder / "shards")
        train = shards["train"]
        bytes_per_token = train.num_bytes / train.num_tokens
        console.print(
            f"{tokenizer.vocab_size} tokens of {bytes_per_token:.2f} bytes on average; the corpus "
            f"is {format_count(train.num_tokens)} tokens"
        )
        return {"num_tokens": train.num_tokens, "bytes_per_token": bytes_per_token}

    def predict(self, hardware: HardwareSpec) -> Result:
        """Say what pre-training will take before it begins."""
        pretrain = recipe.pretrain(self.config)
        spec = pretrain.model.build(self._tokenizer().vocab_size)
        estimate = estimate_training(
            spec,
            hardware,
            tokens_per_step=pretrain.tokens_per_step,
            sequence_length=pretrain.sequence_length,
        )
        ledger = training_memory(spec, micro_batch_tokens=pretrain.tokens_per_micro_batch)
        ledger.require(hardware.memory_bytes, fix="choose a smaller model in a copy of the recipe")
        seconds = (pretrain.minutes or 0.0) * 60
        tokens = Figure.within(estimate.tokens_per_s.value * seconds, 1.4, "tokens", "fit")
        memory = Figure.within(ledger.total + RUNTIME_BYTES, MEMORY_INTERVAL, "B", "fit")
        predictions = {
            "training tokens/s": estimate.tokens_per_s,
            "tokens seen in pre-training": tokens,
            "peak memory": memory,
            "duration of everything": Figure.within(self.config.minutes * 60, 1.3, "s", "fit"),
        }
        self._print_predictions(predictions, count_parameters(spec).total, seconds)
        return {
            "num_parameters": count_parameters(spec).total,
            "predictions": {name: asdict(figure) for name, figure in predictions.items()},
        }

    def pretrain(self, hardware: HardwareSpec) -> Result:
        """Train a model on the corpus."""
        config = recipe.pretrain(self.config)
        tokenizer = self._tokenizer()
        with RunDirectory(self.folder / "pretrain").open(config) as events:
            result = run_pretrain(
                config,
                folder=self.folder / "pretrain",
                tokenizer=tokenizer,
                train=TokenShards(self.folder / "shards" / "train"),
                heldout=TokenShards(self.folder / "shards" / "heldout"),
                events=events,
                on_sample=text_sampler(tokenizer, SAMPLE_PROMPT),
                hardware=hardware,
            )
        console.print(
            f"{result.steps} steps, {format_count(result.num_tokens)} tokens in "
            f"{format_duration(result.elapsed_s)} ({result.precision})"
        )
        return {
            "tokens_per_s": result.num_tokens / result.elapsed_s,
            "num_tokens": result.num_tokens,
            "precision": result.precision,
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def measure_base(self) -> Result:
        """Measure the pre-trained model before it has seen a question."""
        model = load_model(self.folder / "pretrain" / "model", dtype=torch.float32)
        return {**self._bits_per_byte(model), "exact_match": self._exact_match(model)}

    def sft(self) -> Result:
        """Show the model questions with answers."""
        config = recipe.sft(self.config)
        model = load_model(self.folder / "pretrain" / "model", dtype=torch.float32)
        tokenizer = self._tokenizer()
        renderer = Renderer(tokenizer)
        question = sample(self._task(), "test", count=1)[0].question
        examples = [renderer.render(demonstration(problem)) for problem in self._demonstrations()]
        console.print(
            f"{len(examples)} conversations; ends when {self.config.sft_target:.0%} of problems it "
            "was not shown are right, so that something is left to learn by trying"
        )
        with RunDirectory(self.folder / "sft").open(config) as events:
            result = run_sft(
                config,
                model,
                examples,
                folder=self.folder / "sft",
                events=events,
                tokenizer=tokenizer,
                on_sample=chat_sampler(tokenizer, question),
                hooks=[Hook("probe", PROBE_INTERVAL_S, self._probe)],
            )
        return {"steps": result.steps, "num_examples": len(examples)}

    def measure_sft(self) -> Result:
        """Measure the fine-tuned model."""
        model = load_model(self.folder / "sft" / "model", dtype=torch.float32)
        return {"exact_match": self._exact_match(model)}

    def grpo(self, *, sft_seconds: float) -> Result:
        """Let the model try, and learn from which answers were right."""
        config = recipe.grpo(self.config, sft_seconds=sft_seconds)
        model = load_model(self.folder / "sft" / "model", dtype=torch.float32)
        with RunDirectory(self.folder / "grpo").open(config) as events:
            result = run_grpo(
                config, model, self._tokenizer(), folder=self.folder / "grpo", events=events
            )
        console.print(f"{result.steps} rollouts; {result.mismatch_text}")
        return {
            "steps": result.steps,
            "max_mismatch": result.max_mismatch,
            "collapsed": result.collapsed,
        }

    def measure_grpo(self) -> Result:
        """Measure the finished model."""
        model = load_model(self.folder / "grpo" / "model", dtype=torch.float32)
        return {**self._bits_per_byte(model), "exact_match": self._exact_match(model)}

    def publish(self) -> Result:
        """Copy the finished model to ``model/``."""
        partial = self.folder / ".model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.folder / "grpo" / "model", partial)
        shutil.rmtree(self.model_folder, ignore_errors=True)
        partial.rename(self.model_folder)
        size = sum(file.stat().st_size for file in self.model_folder.iterdir())
        console.print(f"{self.model_folder}: {format_bytes(size)}", markup=False)
        return {}

    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder / "tokenizer")

    def _task(self) -> Task:
        return open_task(self.config.task, difficulty=self.config.difficulty)

    def _demonstrations(self) -> list[Problem]:
        problems = self._task().problems("train", self.config.seed)
        docstrings = Docstrings().problems("train", self.config.seed)
        return [
            *itertools.islice(problems, self.config.num_demonstrations),
            *itertools.islice(docstrings, self.config.num_docstrings),
        ]

    def _probe(self, model: Decoder) -> Result:
        """Ask training problems that were not shown; enough right answers end fine-tuning."""
        unseen = itertools.islice(
            self._task().problems("train", self.config.seed),
            self.config.num_demonstrations,
            self.config.num_demonstrations + NUM_PROBES,
        )
        found = self._ask(model, list(unseen))
        return {"exact_match": found.score, "stop": found.score >= self.config.sft_target}

    def _ask(self, model: Decoder, problems: list[Problem]) -> ExactMatch:
        config = EngineConfig(kv_tokens=2**15, max_num_sequences=512, max_tokens_per_step=4096)
        llm = LLM(model, self._tokenizer(), config)
        return exact_match(llm, self._task(), problems, max_tokens=recipe.MAX_ANSWER_TOKENS)

    def _exact_match(self, model: Decoder) -> Result:
        problems = sample(self._task(), "test", count=self.config.eval_problems)
        found = self._ask(model, problems)
        low, high = found.interval.low, found.interval.high
        console.print(
            f"exact match on {found.n} held-out problems: {found.score:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%})"
        )
        return {"value": found.score, "low": low, "high": high, "n": found.n}

    def _bits_per_byte(self, model: Decoder) -> Result:
        heldout = TokenShards(self.folder / "shards" / "heldout")
        window = recipe.pretrain(self.config).sequence_length
        score = measure_perplexity(model, heldout, window=window, stride=window // 2)
        console.print(f"held-out bits per byte: {score.bits_per_byte:.3f}")
        return {"bits_per_byte": score.bits_per_byte, "perplexity": score.perplexity}

    def _print_predictions(
        self, predictions: dict[str, Figure], num_parameters: int, seconds: float
    ) -> None:
        console.print(
            f"{format_count(num_parameters)} parameters, pre-trained for {format_duration(seconds)}"
        )
        cells = [
            (name, _shown(f, f.value), f"{_shown(f, f.low)} to {_shown(f, f.high)}", f.grade)
            for name, f in predictions.items()
        ]
        console.print(table("", ("prediction", "value", "80 % interval", "grade"), cells))


def chat_sampler(tokenizer: Tokenizer, question: str) -> Callable[[Decoder], str]:
    """Return the function that shows how the model answers one question."""
    from weft.spec import SamplingParams

    def answer(model: Decoder) -> str:
        llm = LLM(model, tokenizer, EngineConfig(max_num_sequences=1))
        text = llm.chat(question, SamplingParams(max_tokens=24, temperature=0.0)).text
        return f"{question} -> {text!r}"

    return answer


def _shown(figure: Figure, value: float) -> str:
    if figure.unit == "B":
        return format_bytes(value)
    if figure.unit == "s":
        return format_duration(value)
    return f"{format_count(value)} {figure.unit}"
