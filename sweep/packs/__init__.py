"""A pack: trials that train at once on one frozen base."""
