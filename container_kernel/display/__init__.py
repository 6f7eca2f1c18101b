"""Events and values become text and HTML; nothing here does I/O."""
