"""The model: its weights, its random numbers, and the stages from features to scores."""
