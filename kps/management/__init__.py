"""Management commands of key protection."""
