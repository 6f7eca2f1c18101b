"""Where do images live? Content-addressed, crash-safe, shared by processes."""
