"""An init, a task and a metric for lora-sweep."""
