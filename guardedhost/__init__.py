"""The host agent: TPM, evidence, keys and hypervisors. Needs no Django."""
