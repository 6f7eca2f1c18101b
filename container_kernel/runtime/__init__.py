"""How does a root file system become a process? Knows Linux, builds nothing."""
