"""The fault run: one seed drives operations, clock and faults; the money must stay exact."""
