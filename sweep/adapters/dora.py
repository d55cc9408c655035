"""DoRA: the direction of each output row is adapted by a LoRA, its length is trained separately (Liu et al. 2024).

Shapes as in ``lora.py``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweep.adapters.lora import LoRALinear, TrialFactors


class DoRALinear(LoRALinear):
    """y = m · V x / ‖V‖ + b, row by row, with V = W + s·B A − s·B₀ A₀ and m trained.

    The gradient treats ‖V‖ as a constant (section 4.3 of the paper). Dropout acts in the order of PEFT: on the
    LoRA path, and on what rescaling adds to the base's path, y = W x + b + (m/‖V‖ − 1)·W x' + m/‖V‖·s·B A x'.

    The arguments are those of ``LoRALinear``. For a trial that does not target the layer it is the base layer.

    Attributes:
        lora_magnitude_vector: m (T, O), which starts at ‖V‖; zero where the layer is not targeted.

    """

    targeted: Tensor
    squares_O: Tensor

    def __init__(self, base: nn.Linear, trials: Sequence[TrialFactors], padded_rank: int):
        super().__init__(base, trials, padded_rank)
        targeted = torch.tensor(self.ranks, device=base.weight.device) > 0
        self.register_buffer("targeted", targeted[:, None], persistent=False)
        self.register_buffer("squares_O", self.base.weight.double().square().sum(1).float(), persistent=False)
        self.lora_magnitude_vector = nn.Parameter(torch.where(self.targeted, self.row_norms(), 0.0))

    @torch.no_grad()
    def row_norms(self) -> Tensor:
        """‖V‖ of each output row, (T, O), without V: ‖w‖² + 2s·w·(BA) + s²·‖BA‖² needs products of the rank's size."""
        factors: list[tuple[Tensor, Tensor]] = [(self.lora_A, self.output_factors())]
        if self.moved_A is not None and self.moved_B is not None:
            factors.append((self.moved_A, -self.moved_B))  # an exact zero for trials that moved nothing
        scaling = self.scaling[:, :, 0]
        squares_T_O = self.squares_O
        for lora_A, lora_B in factors:
            wa_T_O_R = F.linear(lora_A.flatten(0, 1), self.base.weight).unflatten(0, lora_A.shape[:2]).mT
            squares_T_O = squares_T_O + 2 * scaling * (wa_T_O_R * lora_B).sum(2)
            for other_A, other_B in factors:
                gram_T_R_R = _products(lora_A, other_A)
                squares_T_O = squares_T_O + scaling**2 * (torch.bmm(lora_B, gram_T_R_R) * other_B).sum(2)
        return squares_T_O.clamp(min=0).sqrt()

    def ratios(self) -> Tensor:
        """m/‖V‖ (T, O); 1 where the layer is not targeted."""
        norms_T_O = torch.where(self.targeted, self.row_norms(), 1.0)
        return torch.where(self.targeted, self.lora_magnitude_vector / norms_T_O, 1.0)

    def factors(self, trial: int) -> dict[str, Tensor]:
        """What trial number ``trial`` adds to the base, without padding: A (r, I), B (O, r) and m (O,), as views."""
        own = super().factors(trial)
        return own | {"lora_magnitude_vector": self.lora_magnitude_vector[trial]} if own else own

    def starts_at_base(self) -> bool:
        """Whether every trial, as it stands, computes bit for bit what the base computes."""
        return super().starts_at_base() and bool((self.ratios() == 1).all())

    def delta(self, trial: int) -> Tensor:
        """What trial number ``trial`` adds to the weight: m/‖V‖·V − W, (O, I)."""
        weight = self.base.weight
        return self.ratios()[trial, :, None].detach() * (weight + super().delta(trial)) - weight

    def _adapted(self, x_T_N_I: Tensor, dropped_T_N_I: Tensor | None, shared_T_N_O: Tensor | None) -> Tensor:
        weight, bias = self.base.weight, self.base.bias
        y_T_N_O = F.linear(x_T_N_I, weight, bias) if shared_T_N_O is None else shared_T_N_O
        inner_T_N_I = x_T_N_I if dropped_T_N_I is None else dropped_T_N_I
        if dropped_T_N_I is not None:
            rescaled_T_N_O = F.linear(dropped_T_N_I, weight)
        else:
            rescaled_T_N_O = y_T_N_O if bias is None else y_T_N_O - bias
        if self.moved_A is not None:
            y_T_N_O = y_T_N_O - self._moved_outputs(x_T_N_I)
            rescaled_T_N_O = rescaled_T_N_O - self._moved_outputs(inner_T_N_I)
        low_T_N_O = torch.bmm(torch.bmm(inner_T_N_I, self.lora_A.mT), self.output_factors().mT)
        ratio_T_1_O = self.ratios()[:, None]
        return y_T_N_O + ((ratio_T_1_O - 1) * rescaled_T_N_O + ratio_T_1_O * low_T_N_O * self.scaling)


def _products(first_T_R_I: Tensor, second_T_R_I: Tensor) -> Tensor:
    """A Cᵀ of each trial; at rank 1 by a sum, because a batched product of one trial differs in its last bits."""
    if first_T_R_I.shape[1] == 1:
        return (first_T_R_I * second_T_R_I).sum(2, keepdim=True)
    return torch.bmm(first_T_R_I, second_T_R_I.mT)
