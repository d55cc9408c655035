from torch import Generator, Tensor, randn, zeros

from sweep.adapters.inits import BaseWeight, Init


@Init
def example_init(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A ~ N(0, 1/in), so that Ax is about as long as x for rank = in; B = 0."""
    lora_A = randn(rank, base.in_features, generator=rng) / base.in_features**0.5
    return lora_A, zeros(base.out_features, rank)
