"""The only room that speaks the Jupyter protocol."""
