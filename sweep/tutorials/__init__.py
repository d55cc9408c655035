"""Five tutorials on LoRA, each claim beside what was measured; the trials are those of ``conf/ablation/tutorial_*``."""
