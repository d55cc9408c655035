"""Characters: a small Llama adapts from one text to another."""
