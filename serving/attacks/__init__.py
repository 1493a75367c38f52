"""What models have to be asked to know what cheating earns; the figures are in `byline.attacks`."""
