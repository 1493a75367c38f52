"""What cheating earns: datasets as attackers leave them, and what they are paid. Knows no model."""
