"""A chat model trained on chats: losses by token, packs bit for bit, answers, as PEFT and transformers have them."""

import json
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sweep.adapters.calibration import Calibration
from sweep.adapters.fold import Folded, fold, linear_layers
from sweep.adapters.targets import select
from sweep.models import hugging_face
from sweep.rng import generator
from sweep.tasks.causal_lm.blocks import NO_TARGET
from sweep.tasks.causal_lm.generate import write_tokens
from sweep.tasks.causal_lm.rows import Chat, verses
from sweep.tasks.causal_lm.task import CausalLM, causal_lm
from sweep.training.evaluate import evaluate, measure_test
from sweep.training.examples import identify, scores_of
from tests.support import hugging_face as tiny
from tests.support.builders import EXACT, lora, optimizer, run, training

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks transformers

ADAPTER = lora(rank=2, alpha=4.0, targets="all_linear")
UPDATE = optimizer(lr=3e-3)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    return causal_lm(tiny.chats("llama", tmp_path_factory.mktemp("chats")), tiny.CACHE)


@pytest.fixture(scope="module")
def short(task: CausalLM, tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    """The same model on 60 prompts with completions, of which several share a block."""
    path = tmp_path_factory.mktemp("short") / "pairs.jsonl"
    pairs = ({"prompt": f"{number}", "completion": "=" * (1 + number % 4)} for number in range(60))
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return causal_lm(task.options.model_copy(update={"target_text": str(path)}), tiny.CACHE)


def folded(task: CausalLM, trials: int, seeds: list[int]) -> Folded:
    model = task.base()
    targets = select(ADAPTER, list(linear_layers(model)), model.presets)
    return fold(model, [ADAPTER] * trials, [targets] * trials, seeds, 2)


def test_training_is_pefts_with_ragged_rows_and_accumulation(task: CausalLM) -> None:
    """20 updates of 3 batches of 2 blocks: PEFT takes all rows of an update, each by itself, in one mean over tokens."""
    peft = pytest.importorskip("peft")
    ours = folded(task, 1, [3])
    network = tiny.network("llama")
    model = peft.get_peft_model(network, peft.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear"))
    for name, layer in ours.layers.items():
        theirs = model.base_model.model.get_submodule(name)
        theirs.lora_A["default"].weight.data.copy_(layer.lora_A[0])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    update = torch.optim.AdamW(
        parameters, lr=UPDATE.lr, weight_decay=UPDATE.weight_decay, betas=UPDATE.betas, eps=UPDATE.eps
    )
    batches = task.target.batches(generator(3, "data"), 2)
    expected = []
    for _ in range(20):
        rows = [row for _ in range(3) for row in zip(*next(batches), strict=True)]
        total, count = torch.zeros(()), 0
        for block, targets in rows:
            for tokens, wanted in documents(block, targets):
                logits = model(input_ids=tokens[None]).logits[0]
                total = total + F.cross_entropy(logits, wanted.long(), ignore_index=NO_TARGET, reduction="sum")
                count += int((wanted != NO_TARGET).sum())
        loss = total / count
        update.zero_grad()
        loss.backward()
        update.step()
        expected.append(loss.item())
    how = training(steps=20, batch_size=2, accumulation=3, log_every=1)
    done = run(ours, task, task.target, [UPDATE], how, [3])
    np.testing.assert_allclose(done.losses(0), expected, atol=1e-5, rtol=0)
    assert expected[-1] < expected[0] - 0.5


def documents(block: torch.Tensor, targets: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The rows of a block, each with what is to be predicted."""
    starts = [*(block[1] == 0).nonzero().flatten().tolist(), block.shape[1]]
    parts = [slice(begin, end) for begin, end in pairwise(starts)]
    return [(block[0, part].long(), targets[part]) for part in parts if (targets[part] != NO_TARGET).any()]


def test_packed_is_alone_beside_longer_rows_bit_for_bit(task: CausalLM) -> None:
    how = training(steps=5, batch_size=2, accumulation=2, log_every=1)
    seeds = [0, 1, 1, 2]
    together = folded(task, 4, seeds)
    done = run(together, task, task.target, [UPDATE] * 4, how, seeds)
    scores = evaluate(together, task, task.target)
    for trial, seed in enumerate(seeds):
        alone = folded(task, 1, [seed])
        only = run(alone, task, task.target, [UPDATE], how, [seed])
        assert only.losses(0) == done.losses(trial)
        assert evaluate(alone, task, task.target) == [scores[trial]]


def test_evaluation_is_the_mean_over_all_targets(task: CausalLM) -> None:
    [scores] = evaluate(folded(task, 1, [0]), task, task.target)
    network = tiny.network("llama").eval()
    losses, hits = [], []
    for block, targets in zip(*task.target.held_out, strict=True):
        for tokens, wanted in documents(block, targets):
            learnt = wanted != NO_TARGET
            logits = network(tokens[None]).logits[0][learnt]
            losses += F.cross_entropy(logits, wanted[learnt].long(), reduction="none").tolist()
            hits += (logits.argmax(-1) == wanted[learnt]).tolist()
    assert scores["eval/loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert scores["eval/token_accuracy"] == pytest.approx(np.mean(hits), abs=1e-6)


def test_scores_of_examples_are_those_of_each_row_by_itself(short: CausalLM) -> None:
    task = short
    ours = folded(task, 2, [0, 1])
    [row, _], measured = evaluate(ours, task, task.target), measure_test(ours, task)
    [own, other] = (one["target"] for one in scores_of(task, measured, identify(task)))
    network = tiny.network("llama").eval()
    rows = [one for block in zip(*task.target.held_out, strict=True) for one in documents(*block)]
    assert len(rows) == 6 > len(task.target.held_out.targets)
    losses = [
        F.cross_entropy(network(tokens[None]).logits[0], wanted.long(), ignore_index=NO_TARGET, reduction="sum").item()
        for tokens, wanted in rows
    ]
    np.testing.assert_allclose(own.sums["test/loss"], losses, rtol=1e-5)
    assert own.weight.tolist() == [int((wanted != NO_TARGET).sum()) for _, wanted in rows]
    assert len(set(own.cluster.tolist())) == 6
    assert own.sums["test/loss"].sum() / own.weight.sum() == pytest.approx(row["eval/loss"], rel=1e-6)
    alone = folded(task, 1, [1])
    [only] = scores_of(task, measure_test(alone, task), identify(task))
    for name, sums in other.sums.items():
        np.testing.assert_allclose(sums, only["target"].sums[name], rtol=0 if EXACT else 1e-4)


def test_examples_are_the_same_rows_in_blocks_of_another_size(short: CausalLM) -> None:
    smaller = causal_lm(short.options.model_copy(update={"context": 16}), tiny.CACHE)
    assert len(smaller.target.held_out.inputs) > len(short.target.held_out.inputs)
    ours, theirs = (set(identify(one)["target"].example.tolist()) for one in (short, smaller))
    assert ours == theirs


def test_examples_of_verses_have_their_chapters_as_clusters(task: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _, held_out = verses(withholds=False)
    few = train[:20], (), held_out[:30]
    monkeypatch.setattr("sweep.tasks.causal_lm.data.verses", lambda withholds: few)
    options = task.options.model_copy(update={"target_text": "verses", "loss_on": "all", "eval_windows": 100})
    found = identify(causal_lm(options, tiny.CACHE))["target"]
    chapters = [chat.chapter for chat in few[2] if isinstance(chat, Chat)]
    assert sorted(found.cluster.tolist()) == sorted(chapters)
    assert len(set(chapters)) < len(chapters)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_answers_are_those_of_transformers_generate_token_for_token(family: str, tmp_path: Path) -> None:
    task = causal_lm(tiny.chats(family, tmp_path), tiny.CACHE)
    ours = folded(task, 3, [0, 1, 2])
    for parameter in ours.parameters.values():
        parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    prompts = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15]]
    written = write_tokens(ours, prompts, 12, {0})
    assert written[0] != written[1]
    for trial in range(3):
        plain = tiny.network(family).eval()
        plain = hugging_face.as_model(plain)
        plain.load_state_dict(ours.merged(trial).state_dict())
        plain._forward_hooks.clear()
        plain._forward_pre_hooks.clear()
        for prompt, own in zip(prompts, written[trial], strict=True):
            tokens = torch.tensor([prompt])
            expected = plain.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=0,
                pad_token_id=0,
            )
            assert own == expected[0, len(prompt) :].tolist()


def test_answers_end_at_the_end_token(task: CausalLM) -> None:
    ours = folded(task, 1, [0])
    [[whole]] = write_tokens(ours, [[5, 6, 7]], 12, set())
    [[cut]] = write_tokens(ours, [[5, 6, 7]], 12, {whole[4]})
    assert cut == whole[: whole.index(whole[4]) + 1]


def test_calibration_sees_the_tokens_that_are_learnt(task: CausalLM) -> None:
    """Against one pass over each row by itself: the loss and the inputs of the layers where a token is predicted."""
    name = "model.layers.1.mlp.down_proj"
    batches = list(islice(task.target.batches(generator(0, "data"), 5), 4))
    calibration = Calibration(task.base(), linear_layers(task.base()), task, lambda: batches)
    network = tiny.network("llama")
    layer = network.get_submodule(name)
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()[0]))
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    total, inputs_learnt = torch.zeros(()), []
    for block, own in zip(inputs, targets, strict=True):
        for tokens, wanted in documents(block, own):
            logits = network(tokens[None]).logits[0]
            total = total + F.cross_entropy(logits, wanted.long(), ignore_index=NO_TARGET, reduction="sum")
            inputs_learnt.append(seen[-1][wanted != NO_TARGET])
    (total / int((targets != NO_TARGET).sum())).backward()
    torch.testing.assert_close(calibration.gradients[name], layer.weight.grad, atol=1e-6, rtol=1e-4)
    expected = torch.cov(torch.cat(inputs_learnt).double().T, correction=0)
    torch.testing.assert_close(calibration.covariances[name], expected, atol=1e-6, rtol=1e-4)
