"""``summary.json``: the run's numbers in one place, for people and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.cli.quickstart.ledger import StepLedger
from weft.core.files import write_json

# Which measuring step stands behind each entry of ``exact_match``.
STAGES = {
    "before_sft": "measure_base",
    "after_sft": "measure_sft",
    "after_grpo": "measure_grpo",
}


def write_summary(folder: Path, ledger: StepLedger, *, minutes: float) -> dict[str, Any]:
    """Collect the results of all steps, write them and return them."""
    durations = ledger.durations()
    measured = {
        "training tokens/s": ledger.result("pretrain")["tokens_per_s"],
        "tokens seen in pre-training": ledger.result("pretrain")["num_tokens"],
        "peak memory": ledger.result("pretrain")["peak_memory_bytes"],
        "duration of everything": sum(durations.values()),
    }
    summary = {
        "minutes": minutes,
        "num_parameters": ledger.result("predict")["num_parameters"],
        "bits_per_byte": ledger.result("measure_grpo")["bits_per_byte"],
        "bits_per_byte_pretrained": ledger.result("measure_base")["bits_per_byte"],
        "exact_match": {
            stage: ledger.result(step)["exact_match"] for stage, step in STAGES.items()
        },
        "grpo_improved_beyond_interval": improved(ledger),
        "max_log_prob_mismatch": ledger.result("grpo")["max_mismatch"],
        "tokens_per_s": ledger.result("pretrain")["tokens_per_s"],
        "precision": ledger.result("pretrain")["precision"],
        "duration_s": {**durations, "total": round(sum(durations.values()), 3)},
        "predictions": {
            name: {**figure, "measured": measured[name]}
            for name, figure in ledger.result("predict")["predictions"].items()
        },
        "corpus_sha256": ledger.result("corpus")["corpus_sha256"],
        "hardware": ledger.result("doctor")["hardware"],
    }
    write_json(folder / "summary.json", summary)
    return summary


def improved(ledger: StepLedger) -> bool:
    """Whether exact match after GRPO lies above the whole interval before it."""
    before = ledger.result("measure_sft")["exact_match"]
    after = ledger.result("measure_grpo")["exact_match"]
    return after["low"] > before["high"]
