"""Somebody else's ablation: PEFT and the Trainer of transformers on a tiny Llama, with their own logging."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from tests.support.hugging_face import VOCABULARY, network


class Windows(Dataset[dict[str, torch.Tensor]]):
    """Random windows in which a token is followed by the next one, so that there is something to learn."""

    def __init__(self, rows: int, seed: int):
        starts = torch.randint(VOCABULARY, (rows, 1), generator=torch.Generator().manual_seed(seed))
        self.tokens = (starts + torch.arange(16)) % VOCABULARY

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[place], "labels": self.tokens[place]}


def train(folder: Path, rank: int, seed: int, **settings: Any) -> None:
    """One run as a script of the web would do it; ``folder`` gets its checkpoints."""
    import transformers
    from peft import LoraConfig, get_peft_model

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=6,
        learning_rate=2e-2,
        per_device_train_batch_size=8,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=3,
        seed=seed,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        **settings,
    )
    torch.manual_seed(seed)
    adapter = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"], init_lora_weights=True)
    model = get_peft_model(network("llama"), adapter)
    trainer = transformers.Trainer(model, arguments, train_dataset=Windows(64, seed), eval_dataset=Windows(32, 99))
    trainer.train()
