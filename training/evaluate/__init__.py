"""What is measured on held-out identities, and the sample grid of them."""
