"""Where rows and records go: the local files always, W&B unless it is turned off."""
