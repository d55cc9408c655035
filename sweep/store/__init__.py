"""A sweep's folder: what is there, who trains what, and why a trial is not trained again."""
