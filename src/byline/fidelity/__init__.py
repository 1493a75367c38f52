"""How true attributions are: the design of the experiment and its figures. Knows no model."""
