"""A Jupyter kernel that makes the notebook its own container image.

Build cells become steps; each step is frozen as one layer of an OCI image; every other cell runs
live inside the isolated container made from that image. ``oci`` holds the values, ``store`` keeps
them, ``transfer`` moves them, ``runtime`` turns a root file system into a process, ``build`` turns
steps into layers, ``workbench`` ties one notebook together, ``kernel`` speaks Jupyter. A module
imports only from rooms above its own.
"""

__version__ = "0.1.0"
