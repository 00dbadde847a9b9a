"""How each category of golden values is computed from the planner's own functions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources

from weft.plan.accounting import flops_per_token
from weft.plan.collectives import (
    Kind,
    algorithm_seconds,
    bus_factor,
    hierarchical_all_reduce_seconds,
)
from weft.plan.course.latent import prefill_attention
from weft.plan.course.linear_cache import LinearCache
from weft.plan.economy import days_per_trillion_tokens, price_per_million_tokens
from weft.plan.flops import forward_flops, training_flops
from weft.plan.gpt_activations import GPTBlock, Recompute, interleave_factor
from weft.plan.hardware.catalogue import device
from weft.plan.hardware.cluster import Span
from weft.plan.hardware.links import Link
from weft.plan.matrices import layer_matrices
from weft.plan.mla_mode import MLAShape, absorbed_flops, break_even_tokens, expanded_flops
from weft.plan.parameters import count_parameters, mtp_parameters
from weft.plan.pipeline import (
    bubble_ratio,
    bubble_share,
    dual_pipe_seconds,
    zero_bubble_seconds,
)
from weft.plan.scaling import (
    CHINCHILLA,
    CHINCHILLA_REFIT,
    KaplanLaw,
    LossLaw,
    llama3_tokens,
    training_compute,
)
from weft.plan.speculation import draft_speed_up, expected_tokens
from weft.plan.utilization import megatron_step_flops, ridge_intensity
from weft.plan.validate.architecture import parse_architecture
from weft.plan.validate.rows import Row
from weft.plan.zero import MEGATRON, StateBytes, ZeroStage, step_traffic
from weft.sched.eplb import place_experts
from weft.spec import MLASpec, ModelSpec, MoESpec

Rule = Callable[[Row], float | Sequence[int]]


@cache
def _models() -> dict[str, str]:
    text = resources.files("weft.plan.data").joinpath("golden_models.toml").read_text("utf-8")
    return tomllib.loads(text)


def golden_model(name: str) -> ModelSpec:
    """Return a model of the golden values."""
    return parse_architecture(_models()[name])


def _words(row: Row) -> str:
    return row["item"].split()[0]


def _find(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise KeyError(pattern)
    return float(match[1])


def _total(row: Row) -> float:
    return _main_model(golden_model(_words(row)))


def _active(row: Row) -> float:
    return count_parameters(replace(golden_model(_words(row)), num_mtp_layers=0)).active


def _published(row: Row) -> float:
    spec = golden_model(_words(row))
    if "MTP" in row["item"]:
        return mtp_parameters(spec)
    return _main_model(spec)


def _main_model(spec: ModelSpec) -> float:
    """Count without multi-token prediction modules, as published totals do."""
    return count_parameters(replace(spec, num_mtp_layers=0)).total


def _module(row: Row) -> float:
    spec = golden_model(_words(row))
    layer = spec.layers[-1]
    mixer, ffn = layer.mixer, layer.ffn
    assert isinstance(mixer, MLASpec), "golden modules are of latent-attention models"
    assert isinstance(ffn, MoESpec), "golden modules are of mixtures"
    if "expert" in row["item"]:
        return 3 * spec.dim * ffn.expert.hidden_dim
    if "sum" in row["item"]:
        return _main_model(spec)
    matrices = layer_matrices(layer, spec.dim)
    norms = (mixer.query_latent_dim or 0) + mixer.kv_latent_dim
    return sum(m.weights for m in matrices if m.branch == "mixer") + norms


def _kv_bytes(row: Row) -> float:
    if "indexer" in row["item"]:
        return golden_model("deepseek-v3").num_layers * (128 + 4)
    if "int8" in row["item"]:
        return golden_model("llama-3.1-70b").cache_values_per_token
    return 2 * golden_model(_words(row)).cache_values_per_token


def _state_bytes(row: Row) -> float:
    heads = 16 if "GDN" in row["item"] else 32
    return LinearCache(num_key_heads=heads).num_bytes


def _forward(row: Row) -> float:
    return forward_flops(golden_model(_words(row)), [128], causal=False).total


def _forward_and_backward(row: Row) -> float:
    return training_flops(golden_model(_words(row)), [128], causal=False)


def _per_token(row: Row) -> float:
    length = int(_find(r"T=(\d+)", row["item"]))
    convention = "palm" if "PaLM" in row["item"] else "causal"
    return flops_per_token(golden_model(_words(row)), length, convention)


def _iteration(row: Row) -> float:
    numbers = [int(_find(rf"\b{key}=(\d+)", row["item"])) for key in ("B", "s", "V")]
    layers, dim = (int(_find(rf"{key}(\d+)", row["inputs"])) for key in ("L", "h"))
    batch, length, vocabulary = numbers
    return megatron_step_flops(batch, length, layers, dim, vocabulary, recompute=True)


def _latent_flops(row: Row) -> float:
    if "crossover" in row["item"]:
        return break_even_tokens(_find(r"c=(\d+)", row["item"]))
    new, cached = (int(_find(rf"{key}=(\d+)", row["item"])) for key in ("s", "cache"))
    if "absorbed - " in row["item"]:
        shape = MLAShape()
        expanded = expanded_flops(shape, new, cached).total
        return absorbed_flops(shape, new, cached).total - expanded
    return prefill_attention(new, cached).total


def _zero(row: Row) -> float:
    stages: dict[str, ZeroStage] = {"P_os+g+p": 3, "P_os+g": 2, "P_os": 1, "baseline": 0}
    words = row["item"].split()
    shards = int(_find(r"Nd=(\d+)", row["item"])) if "Nd=" in row["item"] else 1
    billions = float(words[0].rstrip("B"))
    return billions * StateBytes().sharded(stages[words[1]], shards).total


def _zero_traffic(row: Row) -> float:
    del row
    return step_traffic(1.0, 3) / step_traffic(1.0, 1)


def _optimizer(row: Row) -> float:
    del row
    return MEGATRON.total


def _gpt3(row: Row) -> GPTBlock:
    cut = "TP" in row["item"]
    return GPTBlock(2048, 1, 12288, 96, 8 if cut else 1, "SP" in row["item"])


def _activation_layer(row: Row) -> float:
    if row["item"].startswith("5as/h"):
        return _gpt3(row).score_factor
    recompute: Recompute = "none"
    if "selective" in row["item"]:
        recompute = "selective"
    elif row["item"].endswith("full"):
        recompute = "full"
    return _gpt3(row).layer_bytes(recompute)


def _activation_total(row: Row) -> float:
    if "interleave" in row["item"]:
        return interleave_factor(*(int(_find(rf"{key}=(\d+)", row["item"])) for key in ("p", "m")))
    block = GPTBlock(2048, 1, 12288, 96, tensor=8, sequence_parallel=True)
    if "extras" in row["item"]:
        return block.ends_bytes(51_200)
    return block.first_stage_bytes(96, "selective")


def _selective_cost(row: Row) -> float:
    del row
    block = GPTBlock(2048, 1, 12288, 96)
    return 100.0 * block.selective_flops_share


_KORTHIKANTI = {"22B": (6144, 64), "175B": (12288, 96), "530B": (20480, 128), "1T": (25600, 160)}


def _activation_relative(row: Row) -> float:
    dim, heads = _KORTHIKANTI[_words(row)]
    what = row["item"].split(maxsplit=1)[1].split(" vs ")[0]
    recompute: Recompute = "selective" if "selective" in what else "none"
    if what == "full":
        recompute = "full"
    block = GPTBlock(2048, 1, dim, heads, 8, sequence_parallel="SP" in what)
    return 100.0 * block.layer_bytes(recompute) / GPTBlock(2048, 1, dim, heads, 8).layer_bytes()


def _bubble(row: Row) -> float:
    item = row["item"]
    if "zero-bubble" in item:
        return zero_bubble_seconds(int(_find(r"p=(\d+)", row["inputs"])), 1.0, 1.0, 1.0)
    if "DualPipe" in item:
        return dual_pipe_seconds(int(_find(r"PP=(\d+)", row["inputs"])), 3.0, 2.0, 1.0)
    ranks, micro, chunks = (int(_find(rf"\b{key}=(\d+)", item)) for key in ("p", "m", "v"))
    return (bubble_share if "share" in item else bubble_ratio)(ranks, micro, chunks)


def _bus_factor(row: Row) -> float:
    kinds: dict[str, Kind] = {
        "all_reduce": "all_reduce", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter",
        "all_to_all": "all_to_all", "broadcast": "broadcast", "reduce": "reduce",
    }  # fmt: skip
    return bus_factor(kinds[_words(row)], int(_find(r"n=(\d+)", row["item"])))


def _collective(row: Row) -> float:
    inner, outer, size = Link("inner", 450e9), Link("outer", 50e9), 2.0**30
    if "latency" in row["item"]:
        ranks, start_s = _find(r"n=(\d+)", row["item"]), _find(r"alpha=(\d+)us", row["item"]) * 1e-6
        link = Link("latency", 1e18, start_s=start_s, hop_s=start_s)
        return 1e6 * (link.start_s + (2 * ranks - 3) * link.hop_s)
    if "hierarchical" in row["item"]:
        return 1e3 * hierarchical_all_reduce_seconds(size, Span(8, 4), inner, outer)
    return 1e3 * algorithm_seconds("all_reduce", "ring", 8, size, inner)


def _expert_bytes(row: Row) -> float:
    tokens, top_k, dim = 128, 8, 7168
    per_token = dim + dim // 128 * 4 if "dispatch" in row["item"] else 2 * dim
    return tokens * top_k * per_token


def _serve_memory(row: Row) -> float:
    del row
    kv = golden_model("llama-3.1-70b").cache_values_per_token
    return 70e9 + kv * 8192 * 32


def _critical_batch(row: Row) -> float:
    del row
    spec = device("TPU-v5e")
    return ridge_intensity(spec.matmul_flops["bfloat16"], spec.memory_bandwidth)


def _ridge(row: Row) -> float:
    spec = device(_words(row))
    return ridge_intensity(spec.matmul_flops["bfloat16"], spec.memory_bandwidth)


def _decode_bound(row: Row) -> float:
    spec = golden_model("llama-2-7b")
    count = count_parameters(spec)
    # The benchmark generates 200 tokens, whose cache is read as well.
    read = 2 * (count.total - count.embedding) + 200 * 2 * spec.cache_values_per_token
    return _find(r"([\d.]+) tok/s", row["inputs"]) * read / 1e9


def _speculation(row: Row) -> float:
    if "MTP" in row["item"]:
        return expected_tokens(_find(r"acceptance (\d+)", row["item"]) / 100.0, 1)
    rate, drafted = (
        _find(r"alpha=([\d.]+)", row["inputs"]),
        int(_find(r"gamma=(\d+)", row["inputs"])),
    )
    if "speed-up" in row["item"]:
        return draft_speed_up(rate, drafted, _find(r"c=([\d.]+)", row["item"]))
    return expected_tokens(rate, drafted)


_HOURS_PER_TRILLION = 180e3


def _cost(row: Row) -> float:
    item, inputs = row["item"], row["inputs"]
    if "GPU hours" in item:
        return _HOURS_PER_TRILLION * _find(r"([\d.]+)T", inputs)
    if "total cost" in item:
        return _find(r"([\d.]+)M h", inputs) * 1e6 * _find(r"\$([\d.]+)", inputs)
    if "throughput" in item:
        return 1e12 / (_HOURS_PER_TRILLION * 3600)
    if "days per" in item:
        return days_per_trillion_tokens(_HOURS_PER_TRILLION, int(_find(r"(\d+)", inputs)))
    if "daily cost" in item:
        return _find(r"([\d.]+) nodes", inputs) * 8 * 24 * _find(r"\$([\d.]+)", inputs)
    if "revenue" in item:
        amounts = [_find(rf"(\d+)B {what}", inputs) for what in ("hit", "miss", "out")]
        prices = [float(text) for text in re.findall(r"\d\.\d+", inputs)]
        return sum(1e3 * a * p for a, p in zip(amounts, prices, strict=True))
    rate = 1e3 * _find(r"([\d.]+)k tok/s", inputs)
    return price_per_million_tokens(rate, num_devices=8, price_per_hour=2.0)


def _loss_law(law: LossLaw) -> Rule:
    fields = {"E": "irreducible", "A": "size_scale", "B": "data_scale", "alpha": "size_exponent",
              "beta": "data_exponent"}  # fmt: skip
    return lambda row: float(getattr(law, fields[row["item"]]))


def _table3(row: Row) -> float:
    """Tokens by 6ND at the table's compute."""
    size, flops = _find(r"N=([\d.e+]+)", row["item"]), _find(r"C=([\d.e+]+\d)", row["tolerance"])
    return flops / training_compute(size, 1.0)


def _optimum(row: Row) -> float:
    return CHINCHILLA.optimal(_find(r"C=([\d.e+]+)", row["item"]))[0]


def _kaplan(row: Row) -> float:
    fields = {"alpha_N": "size_exponent", "N_c": "size_scale", "alpha_D": "data_exponent",
              "D_c": "data_scale", "alpha_C_min": "compute_exponent",
              "C_c_min": "compute_scale"}  # fmt: skip
    return float(getattr(KaplanLaw(), fields[_words(row)]))


def _llama3(row: Row) -> float:
    if "6ND" in row["item"]:
        return training_compute(405e9, 15.6e12)
    return llama3_tokens(_find(r"C=([\d.e+]+)", row["item"]))


def _mfu(row: Row) -> float:
    if "MegaScale" in row["item"]:
        batch, length, layers, dim, vocabulary = (
            int(_find(rf"{key}(\d+)", row["inputs"])) for key in ("B", "s", "L", "h", "V")
        )
        flops = megatron_step_flops(batch, length, layers, dim, vocabulary, recompute=False)
        seconds = _find(r"([\d.]+) s\b", row["item"])
        devices = _find(r"(\d+) GPUs", row["item"])
        return 100.0 * flops / seconds / devices / device("A100").matmul_flops["bfloat16"]
    achieved = _find(r"(\d+) TFLOP/s", row["item"]) * 1e12
    return 100.0 * achieved / device("H100").matmul_flops["bfloat16"]


def _balance(row: Row) -> Sequence[int]:
    loads = [float(text) for text in re.findall(r"\d+", row["inputs"].split("]")[0])]
    placement = place_experts([loads], num_places=16, num_groups=4, num_nodes=2, num_devices=8)
    return [int(expert) for expert in placement.physical_to_logical_LP[0]]


RULES: dict[str, Rule] = {
    "params_total": _total,
    "params_active": _active,
    "params_published": _published,
    "params_module": _module,
    "kv_bytes_per_token": _kv_bytes,
    "state_bytes_per_seq": _state_bytes,
    "flops_forward": _forward,
    "flops_fwd_bwd": _forward_and_backward,
    "train_flops_per_token": _per_token,
    "train_flops_per_iter": _iteration,
    "mla_flops": _latent_flops,
    "zero_memory": _zero,
    "zero_comm": _zero_traffic,
    "optimizer_bytes": _optimizer,
    "activation_per_layer": _activation_layer,
    "activation_total": _activation_total,
    "selective_recompute_cost": _selective_cost,
    "activation_relative": _activation_relative,
    "pp_bubble": _bubble,
    "busbw_factor": _bus_factor,
    "collective_time": _collective,
    "ep_bytes": _expert_bytes,
    "serve_memory": _serve_memory,
    "critical_batch": _critical_batch,
    "ridge_point": _ridge,
    "decode_bound": _decode_bound,
    "spec_decode": _speculation,
    "cost": _cost,
    "chinchilla": _loss_law(CHINCHILLA),
    "chinchilla_refit": _loss_law(CHINCHILLA_REFIT),
    "chinchilla_table3": _table3,
    "chinchilla_opt": _optimum,
    "kaplan": _kaplan,
    "llama3_scaling": _llama3,
    "mfu": _mfu,
    "eplb": _balance,
}
"""Category to rule."""
