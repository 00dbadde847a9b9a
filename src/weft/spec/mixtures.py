"""Mixtures of experts of the literature, as their papers set them.

Each function takes the number of experts and one expert and returns the description; sizes are the
caller's, routing, capacity and losses the paper's. Families of checkpoints (Mixtral, DeepSeek-V3,
...) are in ``weft.spec.families``.
"""

from __future__ import annotations

from weft.spec.ffn import MLPSpec, MoESpec, RouterSpec


def noisy_top_k(num_experts: int, expert: MLPSpec, *, top_k: int = 4) -> MoESpec:
    """Noisy top-k gating: learnt noise, softmax over the chosen, even importance.

    Source: Shazeer et al. 2017, arXiv:1701.06538, section 2.1 and appendix A.
    """
    router = RouterSpec(
        score="softmax_chosen", noise=1.0, noise_kind="learnt", aux_kind="importance", aux_loss=0.1
    )
    return MoESpec(num_experts, top_k, expert, router)


def gshard(num_experts: int, expert: MLPSpec) -> MoESpec:
    """GShard: best expert, second by chance, twice the tokens over the experts as capacity.

    Source: Lepikhin et al. 2020, arXiv:2006.16668, section 2.2 and algorithm 1.
    """
    router = RouterSpec(kind="gshard", aux_loss=0.01)
    return MoESpec(num_experts, 2, expert, router, capacity_factor=1.0)


def switch(num_experts: int, expert: MLPSpec, *, capacity_factor: float = 1.25) -> MoESpec:
    """Switch Transformer: one expert, its probability as weight, jitter on the router's input.

    Source: Fedus et al. 2021, arXiv:2101.03961, sections 2.1, 2.2 and 2.4.
    """
    router = RouterSpec(
        kind="switch", normalise=False, noise=0.01, noise_kind="jitter", aux_loss=0.01
    )
    return MoESpec(num_experts, 1, expert, router, capacity_factor=capacity_factor)


def glam(num_experts: int, expert: MLPSpec) -> MoESpec:
    """GLaM: GShard's two experts in every other layer.

    Source: Du et al. 2021, arXiv:2112.06905, sections 4 and 5.1.
    """
    return MoESpec(num_experts, 2, expert, RouterSpec(kind="gshard", aux_loss=0.01))


def st_moe(num_experts: int, expert: MLPSpec) -> MoESpec:
    """ST-MoE: two experts, capacity 1.25, and the z-loss that keeps router outputs small.

    Source: Zoph et al. 2022, arXiv:2202.08906, sections 3.3 and 4.
    """
    router = RouterSpec(kind="gshard", aux_loss=0.01, z_loss=0.001)
    return MoESpec(num_experts, 2, expert, router, capacity_factor=1.25)


def expert_choice(num_experts: int, expert: MLPSpec, *, per_token: int = 2) -> MoESpec:
    """Expert choice: every expert takes its best tokens; needs no loss, sees later tokens.

    Source: Zhou et al. 2022, arXiv:2202.09368, section 3.
    """
    return MoESpec(num_experts, per_token, expert, RouterSpec(kind="expert_choice"))


def hash_layer(num_experts: int, expert: MLPSpec) -> MoESpec:
    """Hash layer: a token's expert is a fixed function of its id.

    Source: Roller et al. 2021, arXiv:2106.04426.
    """
    return MoESpec(num_experts, 1, expert, RouterSpec(kind="hash"))


MIXTURES = {
    "noisy_top_k": noisy_top_k,
    "gshard": gshard,
    "switch": switch,
    "glam": glam,
    "st_moe": st_moe,
    "expert_choice": expert_choice,
    "hash_layer": hash_layer,
}
