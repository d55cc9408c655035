"""Loss of a Hugging Face model with each of some trained adapters: what a user of PEFT would write, without this project.

python loss_with_peft.py MODEL TEXT.jsonl CONTEXT WINDOWS ADAPTER… prints a JSON object: the loss by folder, and of "".
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

model_folder, text, context, windows, *adapters = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model_folder)
documents = [json.loads(line)["text"] for line in Path(text).read_text().splitlines()]
ids = tokenizer(tokenizer.eos_token.join(documents), return_tensors="pt").input_ids[0]
held_out = ids[-int(0.1 * len(ids)) :]
begins = torch.linspace(0, len(held_out) - int(context) - 1, int(windows)).long()
rows = torch.stack([held_out[begin : begin + int(context) + 1] for begin in begins])

losses = {}
for folder in ["", *adapters]:
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    if (Path(folder) / "adapter_config.json").exists():
        model = PeftModel.from_pretrained(model, folder)
    elif folder:
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"), strict=False)
    model.eval()
    with torch.no_grad():
        logits = model(rows[:, :-1]).logits
    losses[folder] = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item()
assert not {"sweep", "analysis", "hydra"} & set(sys.modules)
print(json.dumps(losses))
