"""The LoRA layer, its initialisations, its targets, and folding trials into one model."""
