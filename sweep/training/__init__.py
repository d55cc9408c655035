"""One training loop, its optimizers, schedules, evaluation and timing."""
