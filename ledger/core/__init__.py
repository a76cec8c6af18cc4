"""Pure record keeping: what a leaf is and how it is hashed."""
