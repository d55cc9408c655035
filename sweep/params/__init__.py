"""What a LoRA costs on a model, from its shapes alone: no weights, no network."""
