"""The verbs of ``weft plan``, each imported only when it is called."""

from __future__ import annotations

from cyclopts import App

app = App(
    name="plan",
    help="Know what training or serving takes before it runs.",
    help_format="plaintext",
    help_epilogue="Every verb takes --json, --html FILE and --explain.\n\nExamples:\n"
    "    weft plan train llama-3.1-70b --hw H100x64 --tp 8 --pp 2 --tokens 2T\n"
    "    weft plan infer qwen3-8b --hw H200 --isl 2048 --osl 256 --concurrency 64\n"
    "    weft plan search deepseek-v3 --hw H800x2048 --task train",
)
_VERBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "model": (
        "Count parameters, FLOPs and cache; --ops for every kernel.",
        ("weft plan model deepseek-v3 --ops --hw H800 --phase decode --batch 64",),
    ),
    "memory": (
        "What every device holds in training, and what would make it fit.",
        ("weft plan memory llama-3.1-70b --hw H100x64 --tp 8 --pp 2 --seq 8192",),
    ),
    "train": (
        "Step time, utilisation, memory, days and money of a training run.",
        ("weft plan train llama-3.1-70b --hw H100x64 --tp 8 --pp 2 --seq 8192 --tokens 2T",),
    ),
    "grpo": (
        "A step of reinforcement learning: rollout, scoring, training, hand-over.",
        (
            "weft plan grpo qwen3-8b --hw H100x16 --prompts 256 --group 8 --zero 3",
            "weft plan grpo qwen3-8b --hw H100x16 --rollout 8 --zero 3",
        ),
    ),
    "infer": (
        "Latencies, rates and cost of a served model.",
        ("weft plan infer llama-3.1-70b --hw H100x8 --isl 2048 --osl 256 --concurrency 64",),
    ),
    "search": (
        "The best ways to train or serve a model on given devices.",
        (
            "weft plan search llama-3.1-405b --hw H100x1024 --gbs 512 --seq 8192",
            "weft plan search qwen3-32b --hw H100x8 --task serve --slo ttft=300ms,tpot=20ms",
        ),
    ),
    "pd": (
        "Prefill and decode apart: how many of each, and whether it pays.",
        ("weft plan pd deepseek-v3 --hw H800x8 --dtype float8 --isl 4096 --osl 1024",),
    ),
    "simulate": (
        "Serve a workload in virtual time with the engine's own scheduler.",
        (
            "weft plan simulate llama-3.1-8b --hw H100 --poisson 8 --requests 1000",
            "weft plan simulate qwen3-8b --hw H100 --trace trace.jsonl --replicas 4",
        ),
    ),
    "capacity": (
        "The highest request rate that keeps a service level.",
        ("weft plan capacity llama-3.1-8b --hw H100 --slo ttft=500ms,tpot=30ms",),
    ),
    "spec": (
        "Where speculative decoding pays and where it costs.",
        ("weft plan spec llama-3.1-70b --draft llama-3.2-1b --hw H100x4 --alpha 0.7",),
    ),
    "kv": (
        "Move a prompt's cache, swap it, or compute it again.",
        ("weft plan kv llama-3.1-70b --hw H100x4 --via ib-ndr",),
    ),
    "comm": (
        "Time and bus bandwidth of a collective.",
        ("weft plan comm --op all_reduce --hw H100x64 --bytes 1G",),
    ),
    "calibrate": (
        "Measure this machine in at most a minute.",
        ("weft plan calibrate", "weft plan calibrate --quick"),
    ),
    "matmul": (
        "The fastest matrix product of this machine, searched over shapes.",
        ("weft plan matmul --dtype bfloat16 --seconds 30 --save",),
    ),
    "validate": (
        "Predictions beside published measurements: the error table.",
        ("weft plan validate --training training.csv --inference inference.csv",),
    ),
    "hw": (
        "The catalogue of devices and links, with sources.",
        ("weft plan hw", "weft plan hw H100"),
    ),
    "compare": (
        "A finished run beside its prediction, part by part.",
        ("weft plan compare runs/base",),
    ),
    "cluster": (
        "The shortest estimate: days and sharded state; writes a Slurm script.",
        (
            "weft plan cluster path/to/Qwen3-8B --tokens 1e12 --devices 64",
            "weft plan cluster config.json --devices 256 --slurm-file train.sbatch",
        ),
    ),
}


def _epilogue(lines: tuple[str, ...]) -> str:
    return "Examples:\n" + "\n".join(f"    {line}" for line in lines)


for _name, (_help, _lines) in _VERBS.items():
    app.command(
        f"weft.cli.plan.{_name}:{_name}", name=_name, help=_help, help_epilogue=_epilogue(_lines)
    )

_scaling = App(
    name="scaling", help="Fit scaling laws and spend a budget by them.", help_format="plaintext"
)
_scaling.command(
    "weft.cli.plan.scaling:fit",
    name="fit",
    help="Fit a loss law to runs.",
    help_epilogue=_epilogue(("weft plan scaling fit runs.csv",)),
)
_scaling.command(
    "weft.cli.plan.scaling:optimal",
    name="optimal",
    help="Spend a budget of FLOPs.",
    help_epilogue=_epilogue(("weft plan scaling optimal --flops 1e24 --served 10T",)),
)
app.command(_scaling)
