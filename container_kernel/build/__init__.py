"""How do steps become layers? Knows steps, no cells."""
