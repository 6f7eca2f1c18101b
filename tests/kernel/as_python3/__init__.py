"""What clients of ipykernel rely on, as a table of behaviours.

``python -m tests.kernel.as_python3 FILE`` does them all with whatever kernel Jupyter has under the
name ``python3``, and writes what came of each; ``test_as_python3.py`` does that twice and compares.
"""
