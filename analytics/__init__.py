"""Sales figures, made from order events alone."""
