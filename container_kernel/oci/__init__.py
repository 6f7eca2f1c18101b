"""What is an image? Values and bytes; knows no Linux and no Jupyter."""
