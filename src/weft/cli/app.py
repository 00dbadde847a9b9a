"""The table of verbs. Modules are named as text and imported only when their verb is called."""

from __future__ import annotations

from cyclopts import App

import weft

_KEYS = (
    "Every key of the configuration is an option, such as --optimizer.lr 1e-3; "
    "`weft recipes show {recipe}` prints them all.\n\n"
)


_GUESSES = (
    "--speculation.kind guesses several tokens and verifies them in one step: ngram and suffix "
    "copy earlier text, mtp uses the model's own prediction modules, draft (a smaller model), "
    "eagle, medusa and block the network in --speculation.path.\n\n"
)


def _examples(*lines: str, recipe: str | None = None, notes: str = "") -> str:
    head = notes + (_KEYS.format(recipe=recipe) if recipe else "")
    return head + "Examples:\n" + "\n".join(f"    {line}" for line in lines)


app = App(
    name="weft",
    version=weft.__version__,
    help="The whole LLM stack drawn from one model definition.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    help_epilogue=_examples(
        "weft quickstart --minutes 10", "weft chat runs/quickstart/model", "weft doctor"
    ),
)


def _add(
    parent: App, verb: str, target: str, help_text: str, *examples: str, **options: str
) -> None:
    parent.command(target, name=verb, help=help_text, help_epilogue=_examples(*examples, **options))


_add(
    app,
    "quickstart",
    "weft.cli.quickstart.command:quickstart",
    "From raw text to a chat in the browser, with a model trained here.",
    "weft quickstart",
    "weft quickstart --minutes 2 --no-serve",
    "weft quickstart --out runs/mine --port 9000",
)
_add(
    app,
    "doctor",
    "weft.cli.doctor:doctor",
    "Check this machine and say what will run on it.",
    "weft doctor",
    "weft doctor --json",
)

_data = App(name="data", help="Build training data.", help_format="plaintext")
_add(
    _data,
    "build",
    "weft.cli.data:build",
    "Read, clean and deduplicate documents into a corpus.",
    "weft data build stdlib --out runs/corpus",
    "weft data build notes/ books.jsonl --out runs/corpus",
)
app.command(_data)

_tokenizer = App(name="tokenizer", help="Train and inspect tokenizers.", help_format="plaintext")
_add(
    _tokenizer,
    "train",
    "weft.cli.tokenizer:train",
    "Train a byte-level BPE tokenizer on a corpus or text files.",
    "weft tokenizer train runs/corpus --vocab-size 4096 --out runs/tokenizer",
)
_add(
    _tokenizer,
    "encode",
    "weft.cli.tokenizer:encode",
    "Show how a text is split into tokens.",
    'weft tokenizer encode runs/tokenizer "def main():"',
)
_add(
    _tokenizer,
    "inspect",
    "weft.cli.tokenizer:inspect",
    "Show a tokenizer's size, special tokens and longest tokens.",
    "weft tokenizer inspect runs/tokenizer",
)
app.command(_tokenizer)

_add(
    app,
    "train",
    "weft.cli.train:train",
    "Pre-train a model from scratch.",
    "weft train --corpus runs/corpus --tokenizer runs/tokenizer --out runs/base",
    "weft train my.toml --out runs/base --steps 500 --model.dim 512",
    recipe="pretrain",
)
_add(
    app,
    "sft",
    "weft.cli.sft:sft",
    "Fine-tune a model on instructions.",
    "weft sft runs/base/model --data chats.jsonl --out runs/sft",
    "weft sft runs/base/model --tasks addition --out runs/sft",
    recipe="sft",
)
_add(
    app,
    "grpo",
    "weft.cli.grpo:grpo",
    "Improve a model on a task whose answers can be checked (GRPO).",
    "weft grpo runs/sft/model --task addition --out runs/grpo",
    recipe="grpo",
)
_add(
    app,
    "eval",
    "weft.cli.eval:evaluate",
    "Measure a model: bits per byte, exact match, multiple choice.",
    "weft eval runs/sft/model --tasks addition",
    "weft eval runs/base/model --corpus runs/corpus --out runs/eval",
    recipe="eval",
)
_translate = App(
    name="translate", help="Train, measure and use a translation model.", help_format="plaintext"
)
_add(
    _translate,
    "train",
    "weft.cli.translate:train",
    "Train a translation model on two files whose lines belong together.",
    "weft translate train --train-source train.de --train-target train.en --out runs/de-en",
    "weft translate train --train-source train.de --train-target train.en "
    "--model.kind decoder_only --minutes 10 --out runs/de-en",
    recipe="translation",
)
_add(
    _translate,
    "eval",
    "weft.cli.translate:evaluate",
    "Translate a file and compare with its translations: BLEU and chrF.",
    "weft translate eval runs/de-en/model test.de test.en",
)
_add(
    _translate,
    "text",
    "weft.cli.translate:text",
    "Translate texts, or the lines of standard input.",
    'weft translate text runs/de-en/model "Ein Hund schläft."',
)
app.command(_translate)

_speculator = App(
    name="speculator",
    help="Train heads that draft for a model, and measure speculation.",
    help_format="plaintext",
)
_add(
    _speculator,
    "train",
    "weft.cli.speculator:train",
    "Train an EAGLE, Medusa or block head for a model, and count the guesses that hold.",
    "weft speculator train runs/base/model --corpus runs/corpus --out runs/eagle",
    "weft speculator train runs/sft/model --kind medusa --data chats.jsonl --minutes 10 "
    "--out runs/medusa",
    recipe="speculator",
)
_add(
    _speculator,
    "eval",
    "weft.cli.speculator:evaluate",
    "Measure guesses of any kind: how many hold, tokens per second with and without.",
    "weft speculator eval runs/base/model --corpus runs/corpus --speculation.kind ngram",
    "weft speculator eval runs/base/model --corpus runs/corpus --speculation.kind eagle "
    "--speculation.path runs/eagle/head",
    recipe="speculator-eval",
    notes=_GUESSES,
)
app.command(_speculator)

_add(
    app,
    "generate",
    "weft.cli.generate:generate",
    "Continue a text.",
    'weft generate runs/base/model "def read_file(" --max-tokens 60',
)
_add(
    app,
    "chat",
    "weft.cli.chat:chat",
    "Talk to a model in the terminal.",
    "weft chat runs/quickstart/model",
    'weft chat runs/quickstart/model "Sort: 7 2 9 4"',
)
_add(
    app,
    "serve",
    "weft.cli.serve:serve",
    "Serve a model: OpenAI-compatible API and a chat page.",
    "weft serve runs/quickstart/model --port 8000",
    "weft serve runs/base/model --speculation.kind eagle --speculation.path runs/eagle/head",
    notes="Every setting of the engine is an option, such as --kv-memory-bytes 1G.\n\n" + _GUESSES,
)
_model = App(name="model", help="Look at models without loading them.", help_format="plaintext")
_add(
    _model,
    "show",
    "weft.cli.model:show",
    "Show a model's modules, shapes, parameters and cache size.",
    "weft model show deepseek-v3",
    "weft model show runs/base/model --html model.html",
    "weft model show path/to/config.json --depth 3 --json",
)
_add(
    _model,
    "list",
    "weft.cli.model:list_models",
    "List the published models that are known by name.",
    "weft model list",
)
app.command(_model)

_add(
    app,
    "convert",
    "weft.cli.convert:convert",
    "Rewrite a checkpoint: element type, shards, format check.",
    "weft convert path/to/hf-model runs/model-bf16 --dtype bfloat16",
)
_add(
    app,
    "report",
    "weft.cli.report:report",
    "Make report.html of a run directory.",
    "weft report runs/quickstart",
)

app.command(
    "weft.cli.plan.app:app", name="plan", help="Know what training or serving takes before it runs."
)

_recipes = App(name="recipes", help="List, show and copy configurations.", help_format="plaintext")
_add(_recipes, "ls", "weft.cli.recipes:ls", "List the recipes.", "weft recipes ls")
_add(_recipes, "show", "weft.cli.recipes:show", "Print one.", "weft recipes show pretrain")
_add(
    _recipes,
    "cp",
    "weft.cli.recipes:cp",
    "Copy one to a file to edit.",
    "weft recipes cp pretrain my.toml",
)
app.command(_recipes)
