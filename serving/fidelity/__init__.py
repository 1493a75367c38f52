"""What a model has to be asked for a fidelity measurement; the figures are in `byline.fidelity`."""
