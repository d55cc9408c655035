"""The tasks: a base to start from, a domain to adapt to, a loss and an evaluation."""
