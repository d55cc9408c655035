"""Text: windows, vocabulary, and held-out characters that training never sees."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sweep.models.llama import Llama
from sweep.tasks.next_token import HELD_OUT, Text, windows
from sweep.tasks.task import Batch
from sweep.tasks.transformer.task import transformer
from tests.support.builders import llama, text


def files(folder: Path, source: str, target: str) -> dict[str, str]:
    names = {"source_text": folder / "source.txt", "target_text": folder / "target.txt"}
    for path, content in zip(names.values(), (source, target), strict=True):
        path.write_text(content, encoding="utf-8")
    return {key: str(path) for key, path in names.items()}


def test_windows_have_their_targets_one_later() -> None:
    batch = windows(torch.arange(10), torch.tensor([0, 6]), 3)
    assert batch.inputs.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert batch.targets.tolist() == [[1, 2, 3], [7, 8, 9]]


def test_vocabulary_is_every_character_of_both_texts_in_order(tmp_path: Path) -> None:
    task = transformer(text(context=4, **files(tmp_path, "abcé\n" * 40, "zaab" * 40)))
    assert task.vocabulary == 6
    assert task.source.train[:5].tolist() == [1, 2, 3, 5, 0]  # \n a b c z é
    assert task.new_model(torch.Generator()).head.out_features == 6


def test_windows_of_training_never_reach_the_held_out_last_tenth(tmp_path: Path) -> None:
    # every character occurs once, so its number tells its place
    content = "".join(chr(0x4E00 + index) for index in range(400))
    task = transformer(text(context=4, **files(tmp_path, content, content)))
    assert HELD_OUT == 0.1
    held_out = set(torch.cat([*task.target.held_out]).flatten().tolist())
    assert held_out == set(range(360, 400))
    drawn = task.target.batches(torch.Generator().manual_seed(0), 64)
    seen: set[int] = set()
    for _ in range(200):
        batch = next(drawn)
        assert torch.equal(batch.targets, batch.inputs + 1)
        seen |= set(batch.inputs.flatten().tolist()) | set(batch.targets.flatten().tolist())
    assert seen == set(range(360))


def test_validation_windows_are_of_the_tenth_before_the_held_out_one_and_change_no_other(tmp_path: Path) -> None:
    content = "".join(chr(0x4E00 + index) for index in range(400))
    options = text(context=4, **files(tmp_path, content, content))
    before, task = transformer(options), transformer(options.model_copy(update={"validation": 5}))
    assert before.target.validation is None
    for domain in (task.source, task.target):
        assert isinstance(domain, Text)
        assert domain.validation is not None
        assert torch.equal(domain.held_out.inputs, before.target.held_out.inputs)
        assert domain.train.tolist() == list(range(324))
        assert domain.validation.inputs[:, 0].tolist() == [324, 331, 339, 347, 355]
        assert domain.validation.targets[-1].tolist() == [356, 357, 358, 359]


@pytest.mark.parametrize(("windows", "clusters"), [(24, 24), (50, 50), (64, 64), (256, 52), (1024, 52)])
def test_clusters_are_at_least_fifty_stretches_of_neighbouring_windows(windows: int, clusters: int) -> None:
    domain = Text.of(torch.arange(20_000), 8, windows, validation=0)
    division = domain.division
    assert division.spans is None
    assert division.cluster.unique_consecutive().tolist() == list(range(clusters))
    sizes = division.cluster.bincount()
    assert sizes.max() == sizes[0]


def test_windows_depend_on_their_generator_alone() -> None:
    task = transformer(text())
    first, again, other = (next(task.target.batches(torch.Generator().manual_seed(seed), 5)) for seed in (1, 1, 2))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)


def test_loss_of_a_window_is_the_mean_over_its_characters_and_perplexity_its_exponential() -> None:
    task = transformer(text())
    logits = torch.randn(3, 12, task.vocabulary, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(task.vocabulary, (3, 12), generator=torch.Generator().manual_seed(1))
    by_hand = -torch.log_softmax(logits, -1).gather(-1, targets[..., None])[..., 0].mean(1)
    torch.testing.assert_close(task.loss(logits, targets), by_hand)
    assert task.derive({"eval/loss": math.log(7)}) == {"eval/perplexity": pytest.approx(7)}
    assert task.scores(logits, targets).keys() == {"eval/loss"}


def test_llama_prediction_does_not_depend_on_later_characters() -> None:
    model = llama()
    tokens = torch.arange(10)[None]
    changed = torch.cat([tokens[:, :6], torch.zeros(1, 4, dtype=torch.long)], 1)
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6], atol=1e-5, rtol=1e-5)
    assert (before[:, 6:] - after[:, 6:]).abs().max() > 0.1


def test_llama_attention_sees_distances_and_not_places() -> None:
    """Rotary positions: the first block's attention to a shifted window is the same, only later."""
    model = llama()
    attention = model.blocks[0].attention
    x = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(0))
    early = attention(x, model.cos[:4], model.sin[:4])
    late = attention(x, model.cos[5:9], model.sin[5:9])
    torch.testing.assert_close(early, late, atol=1e-4, rtol=1e-5)
    assert (early - attention(x, model.cos[:4].roll(1, 0), model.sin[:4].roll(1, 0))).abs().max() > 1e-3


def test_llama_is_that_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ours = Llama(vocabulary=13, layers=2, width=16, heads=4, hidden=24, context=12)
    config = transformers.LlamaConfig(
        vocab_size=13,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=12,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        rope_theta=10000.0,
    )
    theirs = transformers.LlamaForCausalLM(config)
    renamed = {
        "model.embed_tokens.weight": "embedding.weight",
        "model.norm.weight": "norm.weight",
        "lm_head.weight": "head.weight",
    }
    # larger weights, so that every layer matters, but not norms of 5 on top, which would amplify rounding
    state = {name: tensor * (1.5 if "norm" in name else 5) for name, tensor in ours.state_dict().items()}
    for name in theirs.state_dict():
        own = name.replace("model.layers", "blocks").replace("self_attn", "attention").replace("layernorm", "norm")
        theirs.state_dict()[name].copy_(state[renamed.get(name, own)])
    ours.load_state_dict(state)
    tokens = torch.randint(13, (3, 12), generator=torch.Generator().manual_seed(0))
    expected = theirs(tokens).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(tokens), expected, atol=1e-5, rtol=1e-5)


def test_llama_learns_one_batch_by_heart() -> None:
    model = llama().requires_grad_(True)
    tokens = torch.randint(11, (2, 11), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    update = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        update.zero_grad()
        loss = F.cross_entropy(model(batch.inputs).flatten(0, 1), batch.targets.flatten())
        loss.backward()
        update.step()
    assert loss.item() < 0.05


def test_text_has_as_many_rows_an_epoch_as_windows_side_by_side() -> None:
    assert Text.of(torch.arange(1000), context=10, eval_windows=4, validation=0).epoch_rows == 90
