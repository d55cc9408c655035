"""The models that the tasks train, our own and those of Hugging Face."""
