"""What people's programs talk to: the portal's acts without its pages, with the same refusals."""
