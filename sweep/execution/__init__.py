"""From trials to records: plan packs, run them, keep what they leave."""
