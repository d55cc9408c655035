"""PEFT: its configurations and files, in and out."""
