"""The page, its explorer, and the W&B workspace."""
