"""``weft translate``: train a translation model, measure it, use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.cli.configs import Overrides, Source, assemble, base_and_file, split_source
from weft.core.console import console, format_duration, table
from weft.core.errors import ConfigError
from weft.core.events import read_events
from weft.core.files import write_json
from weft.core.runs import RunDirectory

if TYPE_CHECKING:
    from weft.core.events import Events
    from weft.evals.translation import TranslationScores
    from weft.models.decoder import Decoder
    from weft.models.encoder_decoder import EncoderDecoder
    from weft.models.translator import Translator
    from weft.recipes.translation import TranslationJob
    from weft.text.tokenizer import Tokenizer
    from weft.train.trainer import Hook, TrainResult


def train(source: Source = None, *overrides: Overrides, out: Path) -> None:
    """Train a translation model on two files whose lines belong together.

    Parameters
    ----------
    source
        A recipe's name or a TOML file; none is the recipe "translation".
    overrides
        --section.key value pairs, such as --train_source train.de --train_target train.en.
    out
        Run folder; the same command continues an interrupted run.
    """
    source, overrides = split_source(source, overrides)
    base, file = base_and_file(source, "translation")
    job: TranslationJob = assemble(base, file, overrides)
    result = run_translation_job(job, out)
    _print_curve(out)
    console.print(f"{result.steps} steps in {format_duration(result.elapsed_s)}")
    console.print(f"model: {out / 'model'}", markup=False)


def evaluate(model: Path, source: Path, target: Path, *, beams: int = 4) -> None:
    """Translate a file and compare with its translations: BLEU and chrF.

    Parameters
    ----------
    model
        Folder of a translation model.
    source
        Sentences to translate, one a line; plain text or .gz.
    target
        Their translations.
    beams
        Hypotheses kept in beam search; greedy search is measured too.
    """
    from weft.data.parallel import read_pairs
    from weft.evals.translation import evaluate_translation
    from weft.models.search import BeamConfig

    translator, pairs = load_translator(model), read_pairs(source, target)
    searches = [None] if beams == 1 else [None, BeamConfig(beams)]
    _print_scores(str(source), [evaluate_translation(translator, pairs, b) for b in searches])


def text(model: Path, *lines: str, beams: int = 4) -> None:
    """Translate texts.

    Parameters
    ----------
    model
        Folder of a translation model.
    lines
        Texts to translate; none reads lines from standard input.
    beams
        Hypotheses kept in beam search; 1 is greedy search.
    """
    import sys

    from weft.models.search import BeamConfig

    sources = list(lines) or [line.strip() for line in sys.stdin]
    if not sources:
        raise ConfigError("there is no text to translate", fix='add it: "Ein Hund schläft."')
    beam = None if beams == 1 else BeamConfig(beams)
    for line in load_translator(model).translate(sources, beam):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def run_translation_job(job: TranslationJob, out: Path) -> TrainResult:
    """Learn the vocabulary, train, and measure on the test files; continues what is there."""
    from weft.data.parallel import read_pairs
    from weft.ops.machine import configure_threads, keep_freed_memory
    from weft.train.translation import run_translation

    configure_threads(job.num_threads)
    keep_freed_memory()
    pairs = read_pairs(job.train_source, job.train_target)
    heldout = _optional_pairs(job.val_source, job.val_target, "val")
    test = _optional_pairs(job.test_source, job.test_target, "test")
    with RunDirectory(out).open(job) as events:
        tokenizer = _tokenizer(job, pairs, out / "tokenizer")
        sources = tokenizer.encode_batch([source for source, _ in pairs])
        targets = tokenizer.encode_batch([target for _, target in pairs])
        result = run_translation(
            job,
            list(zip(sources, targets, strict=True)),
            folder=out,
            tokenizer=tokenizer,
            events=events,
            hooks=_hooks(job, tokenizer, heldout),
        )
        _measure(job, result, tokenizer, {"val": heldout, "test": test}, out, events)
    return result


def load_translator(folder: Path) -> Translator:
    """Load a translation model of either kind."""
    from weft.checkpoint.encoders import load_encoder_decoder
    from weft.checkpoint.hf import load_model
    from weft.core.files import read_json
    from weft.models.translator import Translator
    from weft.ops.machine import configure_threads
    from weft.spec.families.encoders import ENCODER_DECODERS
    from weft.text.tokenizer import Tokenizer

    configure_threads()
    config = Path(folder) / "config.json"
    family = read_json(config).get("model_type") if config.exists() else None
    load: Callable[..., Any] = load_encoder_decoder if family in ENCODER_DECODERS else load_model
    return Translator(load(folder), Tokenizer.load(folder))


def _optional_pairs(
    source: Path | None, target: Path | None, name: str
) -> list[tuple[str, str]] | None:
    from weft.data.parallel import read_pairs

    if source is None or target is None:
        if source is not target:
            raise ConfigError(f"{name}_source and {name}_target belong together", fix="give both")
        return None
    return read_pairs(source, target)


def _tokenizer(job: TranslationJob, pairs: list[tuple[str, str]], folder: Path) -> Tokenizer:
    """Learn the vocabulary, or take the one the run has."""
    from weft.models.translator import train_tokenizer
    from weft.text.tokenizer import Tokenizer

    if not (folder / "tokenizer.json").exists():
        train_tokenizer((text for pair in pairs for text in pair), job.vocab_size).save(folder)
    return Tokenizer.load(folder)


def _hooks(
    job: TranslationJob, tokenizer: Tokenizer, heldout: list[tuple[str, str]] | None
) -> list[Hook]:
    from weft.evals.translation import evaluate_translation, heldout_nll
    from weft.models.translator import Translator
    from weft.train.trainer import Hook

    if heldout is None or job.eval_interval_s is None:
        return []
    # Sentences from all over the file, which may be ordered.
    few = heldout[:: max(1, len(heldout) // job.eval_pairs)][: job.eval_pairs]

    def measure(model: Decoder | EncoderDecoder) -> Mapping[str, Any]:
        translator = Translator(model, tokenizer)
        scores = evaluate_translation(translator, few)
        nll = heldout_nll(translator, few)
        example = f"{few[0][0]} → {scores.translations[0]}"
        text = f"held-out loss {nll:.3f} · BLEU {scores.bleu.score:.1f} · {example}"
        return {"nll": nll, "bleu": scores.bleu.score, "chrf": scores.chrf, "text": text}

    return [Hook("eval", job.eval_interval_s, measure)]


def _measure(
    job: TranslationJob,
    result: TrainResult,
    tokenizer: Tokenizer,
    sets: Mapping[str, list[tuple[str, str]] | None],
    out: Path,
    events: Events,
) -> None:
    """Translate the held-out sets by greedy and beam search and write ``eval.json``."""
    from weft.evals.translation import evaluate_translation
    from weft.models.translator import Translator

    result.model.eval()
    translator = Translator(result.model, tokenizer)
    rows: list[dict[str, Any]] = []
    for name, pairs in sets.items():
        if pairs is None:
            continue
        scores = [evaluate_translation(translator, pairs, beam) for beam in (None, job.beam)]
        _print_scores(name, scores)
        rows += [row for score in scores for row in score.rows(name)]
        best = scores[-1]
        events.emit(
            "eval", step=result.steps, set=name, final=True, bleu=best.bleu.score, chrf=best.chrf
        )
        lines = "\n".join(best.translations) + "\n"
        (out / f"{name}.translations.txt").write_text(lines, encoding="utf-8")
    if rows:
        write_json(out / "eval.json", {"seed": job.seed, "results": rows})


def _print_scores(title: str, scores: list[TranslationScores]) -> None:
    columns = ("search", "BLEU", "95 % interval", "chrF2", "brevity penalty", "sentences")
    rows = [
        (
            score.search,
            f"{score.bleu.score:.2f}",
            f"{score.bleu_interval.low:.1f} to {score.bleu_interval.high:.1f}",
            f"{score.chrf:.2f}",
            f"{score.bleu.brevity_penalty:.3f}",
            len(score.translations),
        )
        for score in scores
    ]
    console.print(table(title, columns, rows))


def _print_curve(out: Path) -> None:
    """Show how the held-out scores grew."""
    rows = [
        (
            event["step"],
            format_duration(event["time_s"]),
            f"{event['nll']:.3f}",
            f"{event['bleu']:.2f}",
            "█" * round(event["bleu"] / 2),
        )
        for event in read_events(out / "metrics.jsonl", "eval")
        if "nll" in event
    ]
    if rows:
        console.print(table("held out", ("step", "time", "held-out loss", "BLEU", ""), rows))
