"""The model: its weights, its randomness, and one seed or many through it."""
