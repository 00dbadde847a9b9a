"""Multi-token prediction: which token meets which, and parity with transformers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weft.checkpoint.hf import hf_tensors, load_model, load_spec, save_model
from weft.core.errors import UnsupportedError
from weft.models import heads
from weft.models.decoder import Decoder
from weft.models.mtp import shift
from weft.models.mtp_loss import mtp_cross_entropy_sums
from weft.nn.context import StepContext
from weft.spec import LayerSpec, MLASpec, MLPSpec, ModelShape, ModelSpec, RotarySpec

LENGTHS = (6, 4, 1)
TOKENS_T = torch.tensor([10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 30])


class Recorder(nn.Module):
    """Stands for a module: keeps what it is given and passes embeddings on."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded: Tensor | None = None

    def forward(self, hidden_TD: Tensor, embedded_TD: Tensor, ctx: StepContext) -> Tensor:
        self.embedded = embedded_TD
        return hidden_TD + embedded_TD


def tiny(num_mtp_layers: int) -> ModelSpec:
    mixer = MLASpec(2, 16, 8, 4, 8, 12, RotarySpec(layout="interleaved"), latent_norm_eps=1e-6)
    return ModelSpec(
        "deepseek_v3", 40, 32, (LayerSpec(mixer, MLPSpec(48)),) * 2, num_mtp_layers=num_mtp_layers
    )


def labels_of(tokens_T: Tensor, lengths: tuple[int, ...]) -> Tensor:
    return shift(tokens_T, lengths, 1, fill=-100)


def test_module_k_joins_the_token_k_ahead_and_predicts_the_one_behind_it() -> None:
    model = Decoder(tiny(2))
    model.mtp = nn.ModuleList([Recorder(), Recorder()])
    seen: list[Tensor] = []
    ctx = StepContext.packed(LENGTHS)
    hidden_TD = torch.zeros(len(TOKENS_T), 32)
    sums = mtp_cross_entropy_sums(model, TOKENS_T, hidden_TD, labels_of(TOKENS_T, LENGTHS), ctx)
    for module in model.mtp:
        nearest = torch.cdist(module.embedded, model.embed.weight).argmin(-1)
        seen.append(nearest)
    first = [11, 12, 13, 14, 15, 0, 21, 22, 23, 0, 0]
    second = [12, 13, 14, 15, 0, 0, 22, 23, 0, 0, 0]
    assert [tokens.tolist() for tokens in seen] == [first, second]
    # Targets: 12 13 14 15 - - 22 23 - - - and 13 14 15 - - - 23 - - - -.
    assert [count.item() for _, count in sums] == [6, 4]
    targets = torch.tensor([12, 13, 14, 15, -100, -100, 22, 23, -100, -100, -100])
    expected, _ = heads.cross_entropy_sum(model, model.embed(torch.tensor(first)), targets)
    torch.testing.assert_close(sums[0][0], expected)


def test_labels_that_do_not_count_are_not_predicted_from_further_back_either() -> None:
    model = Decoder(tiny(1))
    labels_T = labels_of(TOKENS_T, LENGTHS)
    labels_T[:3] = -100  # a prompt of four tokens
    hidden_TD = torch.zeros(len(TOKENS_T), 32)
    ctx = StepContext.packed(LENGTHS)
    [(_, count)] = mtp_cross_entropy_sums(model, TOKENS_T, hidden_TD, labels_T, ctx)
    assert count.item() == 4  # 14 and 15 of the first document, 22 and 23 of the second


def test_loss_reaches_modules_and_model_and_documents_stay_apart() -> None:
    model = Decoder(tiny(2))
    ctx = StepContext.packed(LENGTHS)
    together = mtp_cross_entropy_sums(
        model, TOKENS_T, model(TOKENS_T, ctx), labels_of(TOKENS_T, LENGTHS), ctx
    )
    sum(loss for loss, _ in together).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    apart = [torch.zeros(()), torch.zeros(())]
    for tokens_T in TOKENS_T.split(LENGTHS):
        alone = StepContext.packed([len(tokens_T)])
        labels_T = labels_of(tokens_T, alone.lengths)
        sums = mtp_cross_entropy_sums(model, tokens_T, model(tokens_T, alone), labels_T, alone)
        apart = [total + loss for total, (loss, _) in zip(apart, sums, strict=True)]
    for (loss, _), expected in zip(together, apart, strict=True):
        torch.testing.assert_close(loss, expected)


def test_modules_do_not_change_the_model() -> None:
    plain, with_modules = Decoder(tiny(0), seed=3), Decoder(tiny(2), seed=3)
    shared = {k: v for k, v in with_modules.state_dict().items() if not k.startswith("mtp.")}
    plain.load_state_dict(shared)
    ctx = StepContext.packed(LENGTHS)
    assert torch.equal(plain(TOKENS_T, ctx), with_modules(TOKENS_T, ctx))


def test_modules_are_saved_as_layers_behind_the_last_and_loaded_when_asked_for(
    tmp_path: Path,
) -> None:
    model = Decoder(tiny(2))
    save_model(model, tmp_path)
    assert "model.layers.3.shared_head.norm.weight" in load_file(tmp_path / "model.safetensors")
    assert load_spec(tmp_path).num_mtp_layers == 0
    assert not load_model(tmp_path).mtp
    again = load_model(tmp_path, mtp=True)
    assert again.spec == model.spec
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_copies_of_embedding_and_head_in_the_modules_are_passed_over(tmp_path: Path) -> None:
    model = Decoder(tiny(1))
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name, source in (("embed_tokens", "embed"), ("shared_head.head", "head")):
        tensors[f"model.layers.2.{name}.weight"] = model.get_submodule(source).weight.detach()
    save_file(tensors, tmp_path / "model.safetensors")
    assert len(load_model(tmp_path, mtp=True).mtp) == 1


def test_asking_for_modules_that_the_config_lacks_is_refused(tmp_path: Path) -> None:
    save_model(Decoder(tiny(0)), tmp_path)
    with pytest.raises(UnsupportedError, match="num_nextn_predict_layers"):
        load_model(tmp_path, mtp=True)


def test_families_without_modules_refuse_to_write_them() -> None:
    spec = ModelShape(dim=32, num_layers=1).build(40)
    with pytest.raises(UnsupportedError, match="multi-token"):
        hf_tensors(Decoder(dataclasses.replace(spec, num_mtp_layers=1)))


@pytest.mark.parity
def test_hidden_states_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs = _transformers_pair(tmp_path)
    ours = load_model(tmp_path, dtype=torch.float32, mtp=True)
    tokens_T = torch.randint(97, (13,), generator=torch.Generator().manual_seed(0))
    ctx = StepContext.packed([13])
    with torch.inference_mode():
        hidden_TD = ours(tokens_T, ctx)
        for steps, module in enumerate(ours.mtp, start=1):
            ahead_T = shift(tokens_T, (13,), steps, fill=0)
            hidden_TD = module(hidden_TD, ours.embed_tokens(ahead_T, ctx), ctx)
            # Rows whose tokens are known to the end; theirs feeds its own guesses beyond.
            torch.testing.assert_close(
                hidden_TD[: 13 - steps], theirs(tokens_T, steps), atol=1e-5, rtol=1e-5
            )


def _transformers_pair(folder: Path):
    """Save a tiny DeepSeek-V3 with two modules; return their hidden states by tokens and depth."""
    import transformers
    from transformers.modeling_layers import MtpModel

    config = transformers.DeepseekV3Config(
        vocab_size=97, hidden_size=48, intermediate_size=80, moe_intermediate_size=20,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=32,
        q_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12, n_group=2,
        topk_group=1, n_routed_experts=8, num_experts_per_tok=3, first_k_dense_replace=1,
        max_position_embeddings=64, num_mtp_layers=2,
    )  # fmt: skip
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.DeepseekV3ForCausalLM(config).eval()
    modules = MtpModel(model, 2).eval()
    for tensor in (*model.parameters(), *modules.parameters()):
        tensor.data += 0.05 * torch.randn_like(tensor)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors") | _as_files(modules, num_layers=2)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def hidden(tokens_T: Tensor, steps: int) -> Tensor:
        count = len(tokens_T) - steps
        state = model.model(tokens_T[None, :count], use_cache=False).last_hidden_state
        for depth in range(steps):
            ahead = tokens_T[None, depth + 1 : depth + 1 + count]
            places = torch.arange(count)[None] + depth + 1
            state = modules.forward_layer(depth, state, places, None, input_ids=ahead)
        return state[0]

    return hidden


def _as_files(modules: nn.Module, num_layers: int) -> dict[str, Tensor]:
    """Name the modules' tensors as published checkpoints do."""
    files = {}
    for name, tensor in modules.state_dict().items():
        _, depth, *rest = name.split(".")
        if not name.startswith("layers."):
            continue
        key = ".".join(rest).removeprefix("mtp_block.").replace("post_norm", "shared_head.norm")
        prefix = f"model.layers.{num_layers + int(depth)}."
        if not key.startswith("mlp.experts."):
            files[prefix + key] = tensor.contiguous()
            continue
        for expert, matrix in enumerate(tensor):
            parts = {"down_proj": matrix}
            if key.endswith("gate_up_proj"):
                parts = dict(zip(("gate_proj", "up_proj"), matrix.chunk(2), strict=True))
            for part, value in parts.items():
                files[f"{prefix}mlp.experts.{expert}.{part}.weight"] = value.contiguous()
    return files
