"""The programs beside the model: the engine launcher, training, gradients and the attribution worker."""
