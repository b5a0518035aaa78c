"""What looking costs when there is a million of everything, and what our processes cost at rest."""
