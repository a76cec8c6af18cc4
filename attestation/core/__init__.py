"""Pure verification: bytes in, values out. No clock, no randomness, no input or output."""
