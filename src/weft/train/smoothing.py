"""Label smoothing (Szegedy et al. 2016, arXiv:1512.00567) without the probabilities of all tokens.

T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from weft.data.batch import IGNORE


def smoothing_sum(hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor) -> Tensor:
    """Return what smoothing adds to the summed cross-entropy, per unit of its strength; 0-d.

    With strength e the target is (1 - e) of the label and e of the uniform distribution, so that
    ``loss = lse(z) - (1 - e) z_label - e mean(z) = cross_entropy + e (z_label - mean(z))``.
    Scores are linear, ``z = W h``, hence the added part is ``h . (W_label - mean(W))``: no more
    than a lookup and a dot product per token. Labels of -100 do not count.
    """
    counts_T = labels_T != IGNORE
    labels_T = labels_T[counts_T]
    weight_VD = weight_VD.float()
    mean_D = weight_VD.mean(0)
    return (hidden_TD[counts_T].float() * (F.embedding(labels_T, weight_VD) - mean_D)).sum()
