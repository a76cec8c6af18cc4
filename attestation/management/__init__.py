"""Management commands of attestation."""
