"""Pure key protection: protectors, wrapping and the rules of release."""
