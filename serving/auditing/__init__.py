"""The audit lane: scores served answers again under counterfactual adapters, in the engine."""
