"""The programs beside the model: the engine's launcher, training, indexing, attribution."""
