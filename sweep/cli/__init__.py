"""The command line: the only place that sees Hydra's DictConfig."""
