"""How do images travel? Archives and OCI layouts, decoded in a throw-away child."""
