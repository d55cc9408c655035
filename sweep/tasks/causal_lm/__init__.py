"""Any Hugging Face causal language model adapts from one text to another."""
