"""The bookkeeper: folds the journal, compares, takes snapshots, trims, stops what is wrong."""
