"""Management commands of fabric."""
