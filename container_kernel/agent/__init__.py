"""What runs inside when the image has no Jupyter kernel: one file each, standard library only."""
