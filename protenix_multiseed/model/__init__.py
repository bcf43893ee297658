"""The model: weights, random numbers, and the stages from features to scores."""
