"""An algorithm of the policy-gradient family is a set of choices with a name.

========== =============== ========== ============== =========== ====================
preset     advantage       ratio      clip           aggregation source
========== =============== ========== ============== =========== ====================
GRPO       group_std       token      0.2 / 0.2      sequence    arXiv:2402.03300
DR_GRPO    group_mean      token      0.2 / 0.2      fixed       arXiv:2503.20783
DAPO       group_std       token      0.2 / 0.28     token       arXiv:2503.14476
GSPO       group_std       sequence   3e-4 / 4e-4    sequence    arXiv:2507.18071
RLOO       leave_one_out   token      none           token       arXiv:2402.14740
REINFORCE  batch           token      none           token       arXiv:2501.03262
========== =============== ========== ============== =========== ====================

Without a clip the gradient at the first update after a rollout, where every ratio is 1, is that
of plain REINFORCE: advantage times the gradient of the log-probability.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from weft.align.advantage import AdvantageKind
from weft.align.kl import KLEstimator
from weft.align.mismatch import Correction
from weft.align.policy_loss import PolicyLossConfig
from weft.core.errors import ConfigError

ObjectiveName = Literal["grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce"]


@dataclass(frozen=True)
class Objective:
    """The choices of one algorithm.

    Attributes:
        advantage: Baseline and scale of the rewards.
        loss: Ratio, clip and aggregation.
        kl_coefficient: Weight of KL(policy || reference) in the loss; 0 keeps no reference.
        kl_estimator: Formula of that KL; k3 never is negative.
        correction: What is done about trainer and sampler disagreeing: none, tis or mis.
    """

    advantage: AdvantageKind = "group_std"
    loss: PolicyLossConfig = field(default_factory=PolicyLossConfig)
    kl_coefficient: float = 0.0
    kl_estimator: KLEstimator = "k3"
    correction: Correction = "none"

    def __post_init__(self) -> None:
        if self.kl_coefficient < 0.0:
            raise ConfigError(f"kl_coefficient is {self.kl_coefficient}; it must be at least 0")


GRPO = Objective(loss=PolicyLossConfig(aggregation="sequence"))
DR_GRPO = Objective(advantage="group_mean", loss=PolicyLossConfig(aggregation="fixed"))
DAPO = Objective(loss=PolicyLossConfig(clip_high=0.28))
GSPO = Objective(
    loss=PolicyLossConfig(ratio="sequence", clip_low=3e-4, clip_high=4e-4, aggregation="sequence")
)
RLOO = Objective(advantage="leave_one_out", loss=PolicyLossConfig(clip_low=None, clip_high=None))
REINFORCE = Objective(advantage="batch", loss=PolicyLossConfig(clip_low=None, clip_high=None))

PRESETS: dict[ObjectiveName, Objective] = {
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "gspo": GSPO,
    "rloo": RLOO,
    "reinforce": REINFORCE,
}
