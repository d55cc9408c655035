"""Where packs run: processes of this machine, a Ray cluster, or SLURM."""
